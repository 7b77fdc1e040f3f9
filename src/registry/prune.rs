//! A repository -> the temporary tags that nobody needs any more, removed.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest};
use serde::Serialize;

use super::{RegistryError, Repository, fallback_tag};
use crate::progress::Lines;

/// Questions to the registry at a time.
const AT_ONCE: usize = 8;

/// The annotation that says when a referrer was made.
pub const CREATED: &str = "org.opencontainers.image.created";

/// Which tags go.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How their names begin.
    pub prefix: &'a str,
    /// Tags pushed after this moment stay, and those of which nobody knows when they were pushed.
    pub before: Option<Timestamp>,
    /// Say what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// The JSON is user interface.
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
    /// Why it stays, where it does.
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

/// `None` if the tag is gone meanwhile.
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

/// The tags that were made from the digests of removed tags (signatures, attestations, lists of referrers) go too, unless
/// another tag still stands for the same image: looked at after the removal, so that one set meanwhile counts.
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

/// When the tag was pushed last, by its image's referrers: the records, and whatever else was attached and says when.
pub fn pushed_at(referrers: &[Descriptor]) -> Option<Timestamp> {
    referrers
        .iter()
        .filter_map(|referrer| referrer.annotations().as_ref()?.get(CREATED)?.parse().ok())
        .max()
}
