//! Removes temporary tags from a repository.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest};
use serde::Serialize;

use super::{RegistryError, Repository, fallback_tag};
use crate::progress::Lines;

/// Concurrent requests.
const AT_ONCE: usize = 8;

/// The annotation with the creation time of a referrer.
pub const CREATED: &str = "org.opencontainers.image.created";

/// Selects the tags to remove.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Prefix of the tags.
    pub prefix: &'a str,
    /// Tags pushed after this time stay, and tags without a known push time.
    pub before: Option<Timestamp>,
    /// Report the tags without removing them.
    pub dry_run: bool,
}

/// The JSON is part of the user interface.
#[derive(Serialize)]
pub struct Pruned {
    pub repository: String,
    pub dry_run: bool,
    pub tags: Vec<Judged>,
}

#[derive(Serialize)]
pub struct Judged {
    pub tag: String,
    pub digest: String,
    pub pushed: Option<String>,
    pub removed: bool,
    /// Why the tag stays, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<&'static str>,
}

/// Removes the tags with their signatures, attestations and lists of referrers.
pub async fn prune(repository: &Repository, request: &Request<'_>, lines: &dyn Lines) -> Result<Pruned, RegistryError> {
    let tags = repository.tags().await?;
    let chosen: Vec<String> = tags
        .iter()
        .filter(|tag| tag.starts_with(request.prefix))
        .cloned()
        .collect();
    let mut judged: Vec<Judged> = stream::iter(chosen)
        .map(|tag| judge(repository, tag, request.before))
        .buffered(AT_ONCE)
        .try_filter_map(async |judged| Ok(judged))
        .try_collect()
        .await?;
    if !request.dry_run {
        let progress = lines.line(&repository.name());
        for tag in judged.iter_mut().filter(|tag| tag.kept.is_none()) {
            progress.step(&format!("removing {}", tag.tag));
            repository.remove_tag(&tag.tag).await?;
            tag.removed = true;
        }
        remove_companions(repository, &judged).await?;
    }
    Ok(Pruned {
        repository: repository.name(),
        dry_run: request.dry_run,
        tags: judged,
    })
}

/// `None` if the tag no longer exists.
async fn judge(
    repository: &Repository,
    tag: String,
    before: Option<Timestamp>,
) -> Result<Option<Judged>, RegistryError> {
    let Some(digest) = repository.tag_digest(&tag).await? else {
        return Ok(None);
    };
    let (mut pushed, mut kept) = (None, None);
    if let Some(before) = before {
        let subject: Option<Digest> = digest.parse().ok();
        if let Some(subject) = subject {
            pushed = pushed_at(&repository.referrers(&subject).await?);
        }
        kept = match pushed {
            None => Some("its age is unknown"),
            Some(pushed) if pushed > before => Some("it is not old enough"),
            Some(_) => None,
        };
    }
    Ok(Some(Judged {
        tag,
        digest,
        pushed: pushed.map(|p| p.to_string()),
        removed: false,
        kept,
    }))
}

/// Also removes the tags derived from the digests of removed tags (signatures, attestations, lists of referrers),
/// unless another tag points to the same image. That is checked after the removal, so that a tag set in between counts.
async fn remove_companions(repository: &Repository, judged: &[Judged]) -> Result<(), RegistryError> {
    let removed: BTreeSet<&str> = judged.iter().filter(|t| t.removed).map(|t| t.digest.as_str()).collect();
    if removed.is_empty() {
        return Ok(());
    }
    let tags = repository.tags().await?;
    let standing: HashMap<String, Option<String>> = stream::iter(tags.clone())
        .map(|tag| async move { Ok::<_, RegistryError>((tag.clone(), repository.tag_digest(&tag).await?)) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    for digest in removed {
        let needed = standing.values().flatten().any(|has| has == digest);
        let Ok(digest) = digest.parse::<Digest>() else {
            continue;
        };
        if needed {
            continue;
        }
        let base = fallback_tag(&digest);
        for companion in tags
            .iter()
            .filter(|tag| **tag == base || tag.starts_with(&format!("{base}.")))
        {
            repository.remove_tag(companion).await?;
        }
    }
    Ok(())
}

/// The last push time of the tag, from the referrers of its image: push records, and other referrers with a creation
/// time.
pub fn pushed_at(referrers: &[Descriptor]) -> Option<Timestamp> {
    referrers
        .iter()
        .filter_map(|referrer| referrer.annotations().as_ref()?.get(CREATED)?.parse().ok())
        .max()
}
