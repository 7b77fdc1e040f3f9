//! Reads tags before the transfer, sets them at the end, and reads them back.

use futures_util::future::try_join_all;
use serde::Serialize;

use super::{Publication, PublishError, Site};
use crate::registry::Registries;

/// The change of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "change")]
pub enum TagChange {
    Created,
    /// It pointed to another image before.
    Moved {
        from: String,
    },
    Unchanged,
}

/// The current digests of the tags, per site; fails if an immutable tag would change.
pub(super) async fn look(
    sites: &[Site],
    publication: &Publication,
    registries: &Registries,
) -> Result<Vec<Vec<Option<String>>>, PublishError> {
    try_join_all(
        sites
            .iter()
            .map(|site| try_join_all(site.tags.iter().map(|tag| look_at(site, tag, publication, registries)))),
    )
    .await
}

async fn look_at(
    site: &Site,
    tag: &str,
    publication: &Publication,
    registries: &Registries,
) -> Result<Option<String>, PublishError> {
    let immutable = registries.is_immutable(&site.name, tag);
    let new = publication.root.descriptor.digest().to_string();
    let found = match immutable {
        true => site.repository.read_tag_digest(tag).await,
        false => site.repository.tag_digest(tag).await,
    };
    match found {
        Ok(Some(has)) if has != new && immutable => Err(PublishError::Immutable {
            reference: format!("{}:{tag}", site.name),
            has,
            new,
        }),
        // The registry has lost the tag's manifest; setting the tag repairs it.
        Err(error) if error.is_failure_of_the_server() && !immutable => Ok(None),
        has => Ok(has?),
    }
}

/// Sets every tag; returns the changes in the order of the sites' tags.
pub(super) async fn set(
    sites: &[Site],
    publication: &Publication,
    before: &[Vec<Option<String>>],
    registries: &Registries,
) -> Result<Vec<TagChange>, PublishError> {
    let mut settings = Vec::new();
    for (site, before) in sites.iter().zip(before) {
        for (tag, before) in site.tags.iter().zip(before) {
            settings.push(set_one(site, tag, before.as_deref(), publication, registries));
        }
    }
    try_join_all(settings).await
}

async fn set_one(
    site: &Site,
    tag: &str,
    before: Option<&str>,
    publication: &Publication,
    registries: &Registries,
) -> Result<TagChange, PublishError> {
    let new = publication.root.descriptor.digest().to_string();
    // The upload took time. The specification has no conditional put, so two pushes can still race; reading back
    // detects the loser.
    if registries.is_immutable(&site.name, tag) {
        look_at(site, tag, publication, registries).await?;
    }
    let change = match before {
        Some(before) if before == new => TagChange::Unchanged,
        Some(before) => TagChange::Moved {
            from: before.to_string(),
        },
        None => TagChange::Created,
    };
    if change != TagChange::Unchanged {
        site.repository.put_manifest(tag, &publication.root).await?;
    }
    match site.repository.read_back(tag, &new).await? {
        Some(found) if found == new => Ok(change),
        found => Err(PublishError::TagTaken {
            reference: format!("{}:{tag}", site.name),
            new,
            found: found.unwrap_or_else(|| "gone".to_string()),
        }),
    }
}
