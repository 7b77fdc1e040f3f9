//! `obgp-build prune REPO --prefix P`: temporary tags that nobody needs any more.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SpanRelativeTo, Timestamp};
use oci_spec::image::Digest;
use serde::Serialize;

use super::{Context, Failure};
use crate::cli::PruneArgs;
use crate::config::file::ConfigError;
use crate::oci::ImageReference;
use crate::publish::pushed_at;
use crate::registry::{Access, RegistryError, Repository, fallback_tag};

/// Questions to the registry at a time.
const AT_ONCE: usize = 8;

/// The JSON is user interface.
#[derive(Serialize)]
struct Pruned {
    repository: String,
    dry_run: bool,
    tags: Vec<Judged>,
}

#[derive(Serialize)]
struct Judged {
    tag: String,
    digest: String,
    pushed: Option<String>,
    removed: bool,
    /// Why it stays, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'static str>,
}

pub async fn run(context: &Context, args: &PruneArgs) -> Result<(), Failure> {
    let reference: ImageReference = args.repository.parse()?;
    if reference.target().is_some() {
        return Err(ConfigError::Invalid(format!("prune takes a repository, HOST/PATH, and not {reference}")).into());
    }
    let before = cut_off(args)?;
    let registries = context.registries(&context.build_file()?);
    let repository = registries.repository(&reference.repository, Access::Delete)?;
    let pruned = context
        .unless_cancelled(prune(context, &repository, args, before))
        .await??;
    context.print(&pruned, || text(&pruned))
}

/// Tags pushed after this moment stay.
fn cut_off(args: &PruneArgs) -> Result<Option<Timestamp>, ConfigError> {
    let Some(age) = &args.older_than else {
        return Ok(None);
    };
    let bad = |reason: String| ConfigError::Invalid(format!("--older-than {age}: {reason}"));
    let age = age
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|e| bad(e.to_string()))?;
    if age.is_negative() {
        return Err(bad("it lies in the future".into()));
    }
    let moment = Timestamp::now().checked_sub(age).map_err(|e| bad(e.to_string()))?;
    Ok(Some(moment))
}

async fn prune(
    context: &Context,
    repository: &Repository,
    args: &PruneArgs,
    before: Option<Timestamp>,
) -> Result<Pruned, RegistryError> {
    let tags = repository.tags().await?;
    let chosen: Vec<String> = tags
        .iter()
        .filter(|tag| tag.starts_with(&args.prefix))
        .cloned()
        .collect();
    let mut judged: Vec<Judged> = stream::iter(chosen)
        .map(|tag| judge(repository, tag, before))
        .buffered(AT_ONCE)
        .try_filter_map(async |judged| Ok(judged))
        .try_collect()
        .await?;
    if !args.dry_run {
        let progress = context.terminal.line(&repository.name());
        for tag in judged.iter_mut().filter(|tag| tag.kept.is_none()) {
            progress.step(&format!("removing {}", tag.tag));
            repository.remove_tag(&tag.tag).await?;
            tag.removed = true;
        }
        remove_companions(repository, &judged).await?;
    }
    Ok(Pruned {
        repository: repository.name(),
        dry_run: args.dry_run,
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

fn text(pruned: &Pruned) -> String {
    let mut text = String::new();
    for tag in &pruned.tags {
        let pushed = tag
            .pushed
            .as_deref()
            .map(|p| format!(", pushed {p}"))
            .unwrap_or_default();
        let what = match (tag.kept, pruned.dry_run) {
            (Some(why), _) => format!("stays: {why}"),
            (None, true) => "would be removed".to_string(),
            (None, false) => "removed".to_string(),
        };
        let _ = writeln!(text, "{}:{} {what}{pushed}", pruned.repository, tag.tag);
    }
    if pruned.tags.is_empty() {
        let _ = writeln!(text, "{} has no such tag", pruned.repository);
    }
    text
}
