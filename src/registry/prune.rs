//! Removes temporary tags from a repository.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::untag::Dummy;
use super::{Registries, RegistryError, Repository, fallback_tag};
use crate::layout;
use crate::oci::{Content, RepositoryName};
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

/// Chooses the tags to remove, and changes nothing.
pub async fn choose(
    repository: &Repository,
    registries: &Registries,
    request: &Request<'_>,
) -> Result<Pruned, RegistryError> {
    let name = RepositoryName {
        registry: repository.host().to_string(),
        path: repository.path().to_string(),
    };
    let tags = repository.tags().await?;
    let chosen: Vec<String> = tags.into_iter().filter(|tag| tag.starts_with(request.prefix)).collect();
    let tags = stream::iter(chosen)
        .map(|tag| judge(repository, registries.is_immutable(&name, &tag), tag, request.before))
        .buffered(AT_ONCE)
        .try_filter_map(async |judged| Ok(judged))
        .try_collect()
        .await?;
    Ok(Pruned {
        repository: repository.name(),
        dry_run: request.dry_run,
        tags,
    })
}

/// Removes the chosen tags with their signatures, attestations and lists of referrers. A cancellation counts between
/// two tags, so that each tag is either removed or as it was.
pub async fn remove(
    repository: &Repository,
    pruned: &mut Pruned,
    lines: &dyn Lines,
    cancel: &CancellationToken,
) -> Result<(), RegistryError> {
    let progress = lines.line(&repository.name());
    progress.step("reading the tags");
    let mut standing = digests(repository).await?;
    for tag in pruned.tags.iter_mut().filter(|tag| tag.kept.is_none()) {
        if cancel.is_cancelled() {
            return Ok(());
        }
        progress.step(&format!("removing {}", tag.tag));
        match repository.find_manifest(&tag.tag).await? {
            Some(image) if image.descriptor.digest().as_ref() == tag.digest => {
                repository.remove_tag(&tag.tag, &image).await?;
                standing.remove(&tag.tag);
                tag.removed = true;
                if let Some(dummy) = Dummy::read(&image) {
                    // The signatures to remove are those of the image that the tag had.
                    tag.digest = dummy.image;
                }
                keep_others(repository, &standing, &tag.tag, &image).await?;
            }
            _ => tag.kept = Some("it was changed meanwhile"),
        }
    }
    progress.step("removing signatures and attestations of removed images");
    remove_companions(repository, &pruned.tags, cancel).await
}

/// The digest of each tag.
async fn digests(repository: &Repository) -> Result<BTreeMap<String, String>, RegistryError> {
    stream::iter(repository.tags().await?)
        .map(|tag| async move { Ok((repository.tag_digest(&tag).await?, tag)) })
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |(digest, tag)| Ok(digest.map(|digest| (tag, digest))))
        .try_collect()
        .await
}

/// Some registries remove every tag of an image with one of them: sets the others again.
async fn keep_others(
    repository: &Repository,
    standing: &BTreeMap<String, String>,
    removed: &str,
    image: &Content,
) -> Result<(), RegistryError> {
    let digest = image.descriptor.digest().as_ref();
    let mut lost = Vec::new();
    for (tag, _) in standing.iter().filter(|(_, has)| *has == digest) {
        if repository.tag_digest(tag).await?.is_none() {
            repository.put_manifest(tag, image).await?;
            lost.push(tag.as_str());
        }
    }
    match lost.is_empty() {
        true => Ok(()),
        false => Err(RegistryError::OthersRemoved {
            reference: format!("{}:{removed}", repository.name()),
            others: lost.join(", "),
        }),
    }
}

/// `None` if the tag no longer exists.
async fn judge(
    repository: &Repository,
    immutable: bool,
    tag: String,
    before: Option<Timestamp>,
) -> Result<Option<Judged>, RegistryError> {
    let Some(digest) = repository.tag_digest(&tag).await? else {
        return Ok(None);
    };
    let (mut pushed, mut kept) = (None, None);
    if immutable {
        kept = Some("it is immutable");
    } else if let Some(before) = before {
        let subject: Option<Digest> = digest.parse().ok();
        if let Some(subject) = subject {
            pushed = pushed_at(&repository.referrers(&subject).await?);
        }
        kept = match pushed {
            // A dummy has no age, and the image that the tag had was old enough.
            None if is_half_removed(repository, &tag).await? => None,
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

/// Whether an earlier prune ended while it removed this tag.
async fn is_half_removed(repository: &Repository, tag: &str) -> Result<bool, RegistryError> {
    let found = repository.find_manifest(tag).await?;
    Ok(found.and_then(|content| Dummy::read(&content)).is_some())
}

/// Also removes the tags derived from the digests of removed tags (signatures, attestations, lists of referrers),
/// unless another tag points to the same image, or to an index that contains it. That is checked after the removal, so
/// that a tag set in between counts.
async fn remove_companions(
    repository: &Repository,
    judged: &[Judged],
    cancel: &CancellationToken,
) -> Result<(), RegistryError> {
    let removed: BTreeSet<&str> = judged.iter().filter(|t| t.removed).map(|t| t.digest.as_str()).collect();
    if removed.is_empty() {
        return Ok(());
    }
    let tags = repository.tags().await?;
    let standing = tags.iter().filter(|tag| !is_derived(tag) && !was_removed(judged, tag));
    let Some(needed) = needed(repository, standing).await? else {
        return Ok(());
    };
    let orphans = removed.into_iter().filter(|digest| !needed.contains(*digest));
    for digest in orphans.filter_map(|digest| digest.parse::<Digest>().ok()) {
        let base = fallback_tag(&digest);
        let dotted = format!("{base}.");
        for companion in tags.iter().filter(|tag| **tag == base || tag.starts_with(&dotted)) {
            if cancel.is_cancelled() {
                return Ok(());
            }
            if let Some(content) = repository.find_manifest(companion).await? {
                repository.remove_tag(companion, &content).await?;
            }
        }
    }
    Ok(())
}

/// Whether a tag belongs to a digest: `sha256-HEX`, `sha256-HEX.sig`.
fn is_derived(tag: &str) -> bool {
    let hex = tag.strip_prefix("sha256-").and_then(|rest| rest.split('.').next());
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn was_removed(judged: &[Judged], tag: &str) -> bool {
    judged.iter().any(|judged| judged.removed && judged.tag == tag)
}

/// The digests of the manifests of these tags, and of the manifests in their indexes. `None` if a tag cannot be read:
/// it may need any of them.
async fn needed(
    repository: &Repository,
    tags: impl Iterator<Item = &String>,
) -> Result<Option<BTreeSet<String>>, RegistryError> {
    let each = stream::iter(tags.collect::<Vec<_>>()).map(|tag| async move {
        let Some(content) = repository.find_manifest(tag).await? else {
            repository.note(&format!(
                "signatures of removed images stay: {}:{tag} is listed and cannot be read",
                repository.name()
            ));
            return Ok(None);
        };
        let mut digests = vec![content.descriptor.digest().to_string()];
        if layout::is_index(content.descriptor.media_type()) {
            let index: ImageIndex = repository.parse(&content.descriptor, &content.bytes)?;
            digests.extend(index.manifests().iter().map(|child| child.digest().to_string()));
        }
        Ok(Some(digests))
    });
    let each: Vec<Option<Vec<String>>> = each.buffer_unordered(AT_ONCE).try_collect().await?;
    let each: Option<Vec<Vec<String>>> = each.into_iter().collect();
    Ok(each.map(|digests| digests.into_iter().flatten().collect()))
}

/// The last push time of the tag, from the referrers of its image: push records, and other referrers with a creation
/// time.
pub fn pushed_at(referrers: &[Descriptor]) -> Option<Timestamp> {
    referrers
        .iter()
        .filter_map(|referrer| referrer.annotations().as_ref()?.get(CREATED)?.parse().ok())
        .max()
}
