//! `obgp-build prune REPO --prefix P`: removes temporary tags.

use jiff::{SpanRelativeTo, Timestamp};

use super::{Context, Failure};
use crate::cli::PruneArgs;
use crate::config::file::ConfigError;
use crate::oci::ImageReference;
use crate::registry::Access;
use crate::registry::prune::{Request, choose, remove};
use crate::report;
use crate::util::cancel::Interrupted;

pub async fn run(context: &Context, args: &PruneArgs) -> Result<(), Failure> {
    let reference: ImageReference = args.repository.parse()?;
    if reference.target().is_some() {
        return Err(ConfigError::Invalid(format!("prune takes a repository, HOST/PATH, and not {reference}")).into());
    }
    let before = cut_off(args)?;
    let registries = context.registries(&context.build_file()?);
    let repository = registries.repository(&reference.repository, Access::Delete)?;
    let request = Request {
        prefix: &args.prefix,
        before,
        dry_run: args.dry_run,
    };
    let mut pruned = context
        .unless_cancelled(choose(&repository, &registries, &request))
        .await??;
    let removed = match args.dry_run {
        true => Ok(()),
        false => remove(&repository, &mut pruned, &context.terminal, &context.cancel).await,
    };
    // Also after a failure: earlier tags are removed.
    context.print(&pruned, || report::prune::text(&pruned))?;
    removed?;
    match context.cancel.is_cancelled() {
        true => Err(Interrupted.into()),
        false => Ok(()),
    }
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
