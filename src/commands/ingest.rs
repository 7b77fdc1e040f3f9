//! `obgp-build ingest docker:NAME`: an image that something else built, put into a layout and judged.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::image::{self, ImageName, Opened};
use super::{Context, Failure};
use crate::build::layout_dir;
use crate::cli::IngestArgs;
use crate::config::file::ConfigError;
use crate::engine::Engine;
use crate::layout::{self, IngestOptions, Layout};
use crate::oci::{ImageReference, Platform};
use crate::plan::settings::epoch_from_environment;
use crate::report::text;
use crate::verify::{Verified, read_options};

pub async fn run(context: &Context, args: &IngestArgs) -> Result<(), Failure> {
    let ImageName::Engine(name) = args.image.parse()? else {
        return Err(ConfigError::Invalid("ingest takes an engine's image: docker:NAME".into()).into());
    };
    let tag = match &args.tag {
        Some(tag) => tag.clone(),
        None => ImageReference::familiar(&name)
            .ok()
            .and_then(|r| r.tag.or_else(|| r.digest.is_none().then(|| "latest".into())))
            .ok_or_else(|| ConfigError::Invalid(format!("{name:?} has no tag to take over; give one with --tag")))?,
    };
    let judge = image::judge(context, args.expect.distro.as_deref(), args.expect.contract.as_deref())?.checked()?;
    let engine = context.unless_cancelled(Engine::from_env()).await??;
    let image = engine
        .inspect_image(&name)
        .await?
        .ok_or_else(|| anyhow!("the engine has no image {name}"))?;
    let platform: Platform = format!("{}/{}", image.os, image.architecture)
        .parse()
        .map_err(anyhow::Error::new)?;
    let created = image.created.as_deref().and_then(|c| c.parse::<Timestamp>().ok());
    let source_date_epoch = epoch_from_environment()?
        .or(created.map(Timestamp::as_second))
        .unwrap_or(0);
    let layout = Layout::open_or_create(layout_dir(&args.output))?;
    let progress = context.terminal.line(&name);
    progress.step("exporting into the layout");
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
        let ingested = engine.read_image(&image, |archive| {
            layout::ingest(&layout, archive, &options, progress.as_ref())
        })?;
        Ok::<_, layout::IngestError>((layout, ingested))
    });
    let (layout, ingested) = context
        .unless_cancelled(task)
        .await??
        .with_context(|| format!("reading {name}"))?;
    let opened = Opened {
        platform,
        digest: Some(ingested.manifest.digest().to_string()),
        config: ingested.config,
        tree: ingested.tree,
        compressed: ingested.layers.iter().map(|l| l.size).sum(),
        uncompressed: ingested.layers.iter().map(|l| l.uncompressed_size).sum(),
    };
    let verdict = judge.verdict(&opened.under_test())?;
    let admitted = Verified::admit(ingested.manifest, vec![verdict.clone()]);
    let digest = match admitted {
        Ok(manifest) => {
            let index = layout::write_index(&layout, &[manifest.into_inner()], &BTreeMap::new())?;
            layout.set_tag(&tag, &index)?;
            Some(index.digest().to_string())
        }
        Err(_) => None,
    };
    let location = format!("oci:{}:{tag}", layout_dir(&args.output).display());
    let result = json!({
        "image": args.image,
        "layout": digest.as_ref().map(|_| &location),
        "digest": digest,
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
    if digest.is_some() {
        Ok(())
    } else {
        Err(Failure::Contract)
    }
}
