//! `obgp-build [build]`: every target side by side on its builder, then one index per image.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::plan::{lookup, make};
use super::{Context, Failure};
use crate::build::result::{BuildReport, ImageReport, Outcome};
use crate::build::{Bases, Build, Judging, Publisher, Run, Solver, Store};
use crate::builders::{Builders, default_slots};
use crate::cli::{BuildArgs, BuildOptions, CompressionArg};
use crate::layout::Compression;
use crate::plan::Settings;
use crate::plan::host_env::Host;
use crate::publish::Published;
use crate::report::{files, text};
use crate::sign::PendingKey;
use crate::verify::Contract;
use crate::verify::judge::contract_path;

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let (started, instant) = (Timestamp::now(), Instant::now());
    let options = &args.options;
    if options.publish.sign.is_some() && !options.push {
        return Err(Failure::Usage(anyhow!(
            "--sign signs what is pushed: add --push, or sign later with `obgp-build sign`"
        )));
    }
    let key = PendingKey::load(options.publish.sign.as_ref());
    let mut file = context.build_file()?;
    file.image.labels.extend(options.label.iter().cloned());
    let settings = Settings::new(file, &(&args.target).into())?;
    let contract = Contract::load(&contract_path(&settings.file))?;
    let default_slots = options.jobs.map_or_else(default_slots, usize::from);
    let connecting = Builders::connect(&settings.builders, &settings.file.root, default_slots);
    let builders = context.unless_cancelled(connecting).await??;
    if options.smoke {
        must_run_images(&builders)?;
    }
    let (host, lookup) = (Host::from_env(), lookup(context, &settings));
    let plan = make(context, &settings, &builders, &host, &lookup).await?;
    let registries = context.registries(&settings.file);
    let run = Arc::new(Run {
        settings,
        host,
        lines: Arc::new(context.terminal.clone()),
        cancel: context.cancel.clone(),
        jobs: Semaphore::new(options.jobs.map_or_else(|| builders.slots(), usize::from)),
    });
    let store = Arc::new(Store::open(&run, &options.output, options.compression.into())?);
    let build = Arc::new(Build {
        builders,
        bases: Arc::new(Bases::new(&run, lookup)),
        solver: Solver {
            run: Arc::clone(&run),
            no_cache: options.no_cache,
        },
        store,
        judging: Judging::new(&run, contract, &options.output),
        publisher: Publisher {
            run: Arc::clone(&run),
            registries,
            key: key.ready().await?,
            push: options.push,
            extra_tags: options.extra_tag.clone(),
            builder_id: options.builder_id.clone(),
        },
        smoke: options.smoke,
        run,
    });
    let images = build.images(plan.images).await?;
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        builders: plan.builders,
        absent: plan.absent,
        started: started.to_string(),
        seconds: instant.elapsed().as_secs_f64(),
        images,
    };
    finish(context, options, &report)
}

/// `--smoke` needs engines.
fn must_run_images(builders: &Builders) -> Result<(), Failure> {
    match builders.members().iter().find(|b| b.daemon.engine().is_none()) {
        Some(builder) => Err(Failure::Usage(anyhow!(
            "--smoke runs the image in its builder's engine, and builder {} is a buildkitd, which runs no images: \
             leave --smoke out, or name engines with --builder",
            builder.name
        ))),
        None => Ok(()),
    }
}

/// Writes and prints the report. Its outcome is that of the command.
fn finish(context: &Context, options: &BuildOptions, report: &BuildReport) -> Result<(), Failure> {
    let published = |image: &ImageReport| image.published.clone();
    let published: Vec<Published> = report.images.iter().filter_map(published).collect();
    files::write_zuul_artifacts(options.publish.zuul_artifacts.as_deref(), &published)?;
    let written = files::write_build(&options.output, report)?;
    context.print(report, || text::build(report))?;
    context.terminal.tell(&format!("report: {}", written.display()));
    match report.outcome() {
        Outcome::Done => Ok(()),
        Outcome::BreaksContract => Err(Failure::Contract),
        Outcome::Failed => Err(anyhow!("not everything was done, see above").into()),
    }
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}
