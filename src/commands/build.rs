//! `obgp-build [build]`: every target side by side on its builder, then one index per image.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use jiff::Timestamp;

use super::{Context, Failure};
use crate::base::lookup::Lookup;
use crate::build::result::{BuildReport, Outcome};
use crate::build::{self, Inputs, Options, layout_dir};
use crate::builders::{Builders, default_slots};
use crate::cli::{BuildArgs, CompressionArg};
use crate::layout::{Compression, Layout};
use crate::plan::host_env::Host;
use crate::plan::{self, Settings, Surroundings};
use crate::publish::Published;
use crate::report::{files, text};
use crate::sign::PendingKey;
use crate::verify::Contract;
use crate::verify::judge::contract_path;

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let (started, instant) = (Timestamp::now(), Instant::now());
    let options = args.options.clone();
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
    if options.smoke
        && let Some(builder) = builders.members().iter().find(|b| b.daemon.engine().is_none())
    {
        return Err(Failure::Usage(anyhow!(
            "--smoke runs the image in its builder's engine, and builder {} is a buildkitd, which runs no images: \
             leave --smoke out, or name engines with --builder",
            builder.name
        )));
    }
    let host = Host::from_env();
    let lookup = Lookup::new(
        context.registries(&settings.file),
        settings.bootstrap,
        settings.base.as_deref(),
    );
    let plan = {
        let progress = context.terminal.line("plan");
        let around = Surroundings {
            host: &host,
            lookup: &lookup,
            progress: progress.as_ref(),
            cancel: &context.cancel,
        };
        context
            .unless_cancelled(plan::plan(&settings, &builders, around))
            .await??
    };
    let layout = Arc::new(Layout::open_or_create(layout_dir(&options.output))?);
    let key = key.ready().await?;
    let jobs = options.jobs.map_or_else(|| builders.slots(), usize::from);
    let inputs = Inputs {
        registries: context.registries(&settings.file),
        options: Options {
            output: options.output.clone(),
            no_cache: options.no_cache,
            smoke: options.smoke,
            compression: options.compression.into(),
            push: options.push,
            extra_tags: options.extra_tag,
            builder_id: options.builder_id,
        },
        settings,
        contract,
        builders,
        key,
        host,
        lookup,
        layout,
        lines: Arc::new(context.terminal.clone()),
        cancel: context.cancel.clone(),
    };
    let images = build::build(inputs, plan.images, jobs).await?;
    let published: Vec<Published> = images.iter().filter_map(|image| image.published.clone()).collect();
    files::write_zuul_artifacts(options.publish.zuul_artifacts.as_deref(), &published)?;
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        builders: plan.builders,
        absent: plan.absent,
        started: started.to_string(),
        seconds: instant.elapsed().as_secs_f64(),
        images,
    };
    let written = files::write_build(&options.output, &report)?;
    context.print(&report, || text::build(&report))?;
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
