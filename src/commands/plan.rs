//! `obgp-build plan`: everything that `build` checks and resolves before it starts.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;

use super::{Context, Failure};
use crate::base::lookup::Lookup;
use crate::builders::{Builder, Builders, default_slots};
use crate::cli::BuildArgs;
use crate::plan::host_env::Host;
use crate::plan::{self, Plan, Settings, Surroundings, output};
use crate::report;
use crate::sign::PendingKey;
use crate::verify::Contract;
use crate::verify::judge::contract_path;

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let Prepared { settings, key, .. } = prepare(context, args)?;
    let builders = connect(context, args, &settings).await?;
    let lookup = lookup(context, &settings);
    let plan = make(context, &settings, &builders, &Host::from_env(), &lookup).await?;
    key.ready().await?;
    context.print(&plan, || report::plan::text(&plan))
}

/// What is known before an engine or a registry is asked.
pub struct Prepared {
    pub settings: Settings,
    pub contract: Contract,
    pub key: PendingKey,
    pub output: PathBuf,
}

/// Checks every flag and file that a build needs.
pub fn prepare(context: &Context, args: &BuildArgs) -> Result<Prepared, Failure> {
    let (options, publish) = (&args.options, &args.options.publish);
    for (flag, given, what) in [
        (
            "--key",
            publish.key.is_some(),
            "signs what is pushed: add --push, or sign later with `obgp-build sign`",
        ),
        (
            "--zuul-artifacts",
            publish.zuul_artifacts.is_some(),
            "lists what is pushed: add --push",
        ),
        (
            "--extra-tag",
            !options.extra_tag.is_empty(),
            "names what is pushed: add --push",
        ),
    ] {
        if given && !options.push {
            return Err(Failure::Usage(anyhow!("{flag} {what}")));
        }
    }
    if options.builder_id.is_some() && publish.key.is_none() {
        let text = "--builder-id is for the provenance, which is written for signed images: add --push and --key";
        return Err(Failure::Usage(anyhow!(text)));
    }
    let mut file = context.build_file()?;
    for (key, value) in &options.label {
        file.image.labels.insert(key.clone(), value.clone());
    }
    let settings = Settings::new(file, &(&args.target).into())?;
    let output = context.output(options.output.as_deref(), &settings.file);
    output::check(&output, settings.distros.len() * settings.platforms.len())?;
    if let Some(path) = &publish.zuul_artifacts {
        output::check_file("--zuul-artifacts", path)?;
    }
    Ok(Prepared {
        contract: Contract::load(&contract_path(&settings.file))?,
        key: PendingKey::load(publish.key.as_ref())?,
        settings,
        output,
    })
}

/// Connects to the builders, and checks that they can do what the flags ask.
pub async fn connect(context: &Context, args: &BuildArgs, settings: &Settings) -> Result<Arc<Builders>, Failure> {
    let slots = args.options.jobs.map_or_else(default_slots, usize::from);
    let connecting = Builders::connect(&settings.builders, &settings.file.root, slots);
    let builders = context.unless_cancelled(connecting).await??;
    let unable = |b: &&Arc<Builder>| b.daemon.engine().is_none();
    match builders.members().iter().find(unable).filter(|_| args.options.smoke) {
        Some(builder) => Err(Failure::Usage(anyhow!(
            "--smoke runs the image in its builder's engine, and builder {} is a buildkitd, which runs no images: \
             leave --smoke out, or name engines with --builder",
            builder.name
        ))),
        None => Ok(builders),
    }
}

/// Finds images in registries, as build.toml and the flags have them.
pub fn lookup(context: &Context, settings: &Settings) -> Lookup {
    Lookup::new(
        context.registries(&settings.file),
        settings.bootstrap,
        settings.base.as_deref(),
    )
}

pub async fn make(
    context: &Context,
    settings: &Settings,
    builders: &Builders,
    host: &Host,
    lookup: &Lookup,
) -> anyhow::Result<Plan> {
    let progress = context.terminal.line("plan");
    let around = Surroundings {
        host,
        lookup,
        progress: progress.as_ref(),
        cancel: &context.cancel,
    };
    let planning = plan::plan(settings, builders, around);
    Ok(context.unless_cancelled(planning).await??)
}
