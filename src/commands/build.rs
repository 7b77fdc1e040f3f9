//! `obgp-build [build]`: every target side by side on its builder, then one index per image.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::plan::{Prepared, connect, lookup, make, prepare};
use super::{Context, Failure};
use crate::build::result::{BuildReport, ImageReport, Outcome};
use crate::build::{Bases, Build, Judging, Publisher, Run, Solver, Store};
use crate::cli::{BuildArgs, BuildOptions, CompressionArg};
use crate::layout::Compression;
use crate::plan::host_env::Host;
use crate::publish::Published;
use crate::report::{files, text};
use crate::util::errors::render;

/// The provenance's builder without `--builder-id`.
const BUILDER_ID: &str = "https://opendev.org/openstack/openstack-helm-images/obgp-build";

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let (started, instant) = (Timestamp::now(), Instant::now());
    let options = &args.options;
    let Prepared {
        settings,
        contract,
        key,
        output,
    } = prepare(context, args)?;
    let builders = connect(context, args, &settings).await?;
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
    let store = Arc::new(Store::open(&run, &output, options.compression.into(), &context.wait())?);
    let build = Arc::new(Build {
        builders,
        bases: Arc::new(Bases::new(&run, lookup)),
        solver: Solver {
            run: Arc::clone(&run),
            no_cache: options.no_cache,
        },
        store,
        judging: Judging::new(&run, contract, &output),
        publisher: Publisher {
            run: Arc::clone(&run),
            registries,
            key: key.ready().await?,
            push: options.push,
            extra_tags: options.extra_tag.clone(),
            builder_id: options.builder_id.clone().unwrap_or_else(|| BUILDER_ID.into()),
        },
        smoke: options.smoke,
        run,
    });
    let mut images = build.images(plan.images).await?;
    for image in &mut images {
        let pushed = image.published.as_ref().map(Published::images_by_digest);
        image.verify = context.cosign_commands(options.publish.key.as_ref(), &pushed.unwrap_or_default());
    }
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        builders: plan.builders,
        absent: plan.absent,
        started: started.to_string(),
        seconds: instant.elapsed().as_secs_f64(),
        images,
    };
    finish(context, options, &output, &report)
}

/// Prints the result, then writes its files. What cannot be written is reported, and hides nothing else.
fn finish(context: &Context, options: &BuildOptions, output: &Path, report: &BuildReport) -> Result<(), Failure> {
    let mut unwritten = Vec::new();
    if let Err(Failure::Failed(error)) = context.print(report, || text::build(report)) {
        context.terminal.say(&text::build(report));
        unwritten.push(error);
    }
    match files::write_build(output, report) {
        Ok(written) => context.terminal.tell(&format!("report: {}", written.display())),
        Err(error) => unwritten.push(error),
    }
    let published = |image: &ImageReport| image.published.clone();
    let published: Vec<Published> = report.images.iter().filter_map(published).collect();
    unwritten.extend(files::write_zuul_artifacts(options.publish.zuul_artifacts.as_deref(), &published).err());
    for error in &unwritten {
        context.terminal.say(&render(error));
    }
    match report.outcome() {
        Outcome::Done if unwritten.is_empty() => Ok(()),
        Outcome::Done => Err(anyhow!("the images are complete, but their report is not, see above").into()),
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
