//! `obgp-build ingest docker:NAME`: an image of an engine, put into a layout and judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{Context, Failure};
use crate::cli::IngestArgs;
use crate::config::file::ConfigError;
use crate::engine::{Engine, EngineImage};
use crate::image::{Image, ImageName, open};
use crate::layout::{self, IngestOptions, Layout};
use crate::oci::ImageReference;
use crate::plan::output;
use crate::plan::settings::epoch_from_environment;
use crate::report::text;
use crate::verify::{Verified, read_options};

pub async fn run(context: &Context, args: &IngestArgs) -> Result<(), Failure> {
    let ImageName::Engine(name) = args.image.parse()? else {
        return Err(ConfigError::Invalid("ingest takes an engine's image: docker:NAME".into()).into());
    };
    let tag = match &args.tag {
        Some(tag) => tag.clone(),
        None => tag_of(&name)?,
    };
    let judge = context
        .judge(args.expect.distro.as_deref(), args.expect.contract.as_deref())?
        .checked()?;
    let output = context.output(args.output.as_deref(), &judge.file);
    output::check(&output, 1)?;
    let engine = context.unless_cancelled(Engine::from_env()).await??;
    let (image, platform) = open::find_in_engine(&engine, &name).await?;
    let source_date_epoch = epoch_from_environment()?.unwrap_or_else(|| created(&image));
    let layout = Arc::new(Layout::open_or_create_with(output::layout(&output), &context.wait())?);
    layout.warn_of_lost_platforms(&tag, &[platform], context.terminal.line(&name).as_ref());
    let progress = context.terminal.line(&name);
    progress.step("exporting into the layout");
    let storage = judge.file.engine.read_storage;
    let (ingested, read_from) = {
        let layout = Arc::clone(&layout);
        let compression = args.compression.into();
        let task = spawn_blocking(move || {
            let options = IngestOptions {
                platform,
                base_diff_ids: Vec::new(),
                source_date_epoch,
                compression,
                labels: BTreeMap::new(),
                expected_size: Some(image.size),
                read: read_options(false),
            };
            engine.read_image(&image, storage, |archive| {
                layout::ingest(&layout, archive, &options, progress.as_ref())
            })
        });
        let ingested = context.unless_cancelled(task).await??;
        ingested.with_context(|| format!("reading {name}"))?
    };
    let manifest = ingested.manifest.clone();
    let verdict = judge.verdict(&Image::ingested(platform, ingested))?;
    let index = match Verified::admit(manifest, vec![verdict.clone()]) {
        Ok(manifest) => {
            let index = layout::write_index(&layout, &[manifest.into_inner()], &BTreeMap::new())?;
            layout.set_tag(&tag, &index)?;
            Some(index)
        }
        Err(_) => None,
    };
    let digest = index.map(|index| index.digest().to_string());
    let location = format!("oci:{}:{tag}", output::layout(&output).display());
    let result = json!({
        "image": args.image,
        "layout": digest.as_ref().map(|_| &location),
        "digest": digest,
        "read_from": read_from,
        "passed": verdict.passed(),
        "platforms": [&verdict],
    });
    context.print(&result, || {
        let end = match &digest {
            Some(digest) => format!("\n{location}\n{digest}\n"),
            None => "\nnot tagged: it breaks its contract\n".to_string(),
        };
        text::verdict(&verdict) + &end
    })?;
    digest.map(|_| ()).ok_or(Failure::Contract)
}

/// The tag of the image in the engine.
fn tag_of(name: &str) -> Result<String, ConfigError> {
    ImageReference::familiar(name)
        .ok()
        .and_then(|r| r.tag.or_else(|| r.digest.is_none().then(|| "latest".into())))
        .ok_or_else(|| ConfigError::Invalid(format!("{name:?} has no tag to take over; give one with --tag")))
}

/// In seconds since 1970; 0 if the engine does not know.
fn created(image: &EngineImage) -> i64 {
    let created = image.created.as_deref().and_then(|c| c.parse::<Timestamp>().ok());
    created.map_or(0, Timestamp::as_second)
}
