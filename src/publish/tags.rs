//! Tags: looked at before anything is sent, set last, and read back.

use futures_util::future::try_join_all;
use serde::Serialize;

use super::{PublishError, Shipment, Site};
use crate::registry::Registries;

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "change")]
pub enum TagChange {
    Created,
    /// It stood for another image before.
    Moved {
        from: String,
    },
    Unchanged,
}

/// What the tags stand for now, site by site; refused when one must stay what it is.
pub(super) async fn look(
    sites: &[Site],
    shipment: &Shipment,
    registries: &Registries,
) -> Result<Vec<Vec<Option<String>>>, PublishError> {
    try_join_all(
        sites
            .iter()
            .map(|site| try_join_all(site.tags.iter().map(|tag| look_at(site, tag, shipment, registries)))),
    )
    .await
}

async fn look_at(
    site: &Site,
    tag: &str,
    shipment: &Shipment,
    registries: &Registries,
) -> Result<Option<String>, PublishError> {
    let immutable = registries.is_immutable(&site.name, tag);
    let new = shipment.root.descriptor.digest().to_string();
    match site.repository.tag_digest(tag).await {
        Ok(Some(has)) if has != new && immutable => Err(PublishError::Immutable {
            reference: format!("{}:{tag}", site.name),
            has,
            new,
        }),
        // The registry has lost what it stands for; that it is set mends it.
        Err(error) if error.is_failure_of_the_server() && !immutable => Ok(None),
        has => Ok(has?),
    }
}

/// Sets every tag; the changes are in the order of the sites' tags.
pub(super) async fn set(
    sites: &[Site],
    shipment: &Shipment,
    before: &[Vec<Option<String>>],
    registries: &Registries,
) -> Result<Vec<TagChange>, PublishError> {
    let mut settings = Vec::new();
    for (site, before) in sites.iter().zip(before) {
        for (tag, before) in site.tags.iter().zip(before) {
            settings.push(set_one(site, tag, before.as_deref(), shipment, registries));
        }
    }
    try_join_all(settings).await
}

async fn set_one(
    site: &Site,
    tag: &str,
    before: Option<&str>,
    shipment: &Shipment,
    registries: &Registries,
) -> Result<TagChange, PublishError> {
    let new = shipment.root.descriptor.digest().to_string();
    // Uploading took its time. The specification has no "only if", so a moment stays in which two pushes can both win;
    // reading back tells the one that lost.
    if registries.is_immutable(&site.name, tag) {
        look_at(site, tag, shipment, registries).await?;
    }
    let change = match before {
        Some(before) if before == new => TagChange::Unchanged,
        Some(before) => TagChange::Moved {
            from: before.to_string(),
        },
        None => TagChange::Created,
    };
    if change != TagChange::Unchanged {
        site.repository.put_manifest(tag, &shipment.root).await?;
    }
    let found = site.repository.find_manifest(tag).await?;
    let found = found.map_or("gone".to_string(), |content| content.descriptor.digest().to_string());
    if found != new {
        return Err(PublishError::TagTaken {
            reference: format!("{}:{tag}", site.name),
            new,
            found,
        });
    }
    Ok(change)
}
