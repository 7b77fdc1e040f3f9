//! `obgp-build plan`.

use super::{Context, Failure};
use crate::base::lookup::Lookup;
use crate::builders::{Builders, default_slots};
use crate::cli::TargetArgs;
use crate::plan::host_env::Host;
use crate::plan::{self, Plan, Settings, Surroundings};
use crate::report;

pub async fn run(context: &Context, args: &TargetArgs) -> Result<(), Failure> {
    let settings = Settings::new(context.build_file()?, &args.into())?;
    let connecting = Builders::connect(&settings.builders, &settings.file.root, default_slots());
    let builders = context.unless_cancelled(connecting).await??;
    let lookup = lookup(context, &settings);
    let plan = make(context, &settings, &builders, &Host::from_env(), &lookup).await?;
    context.print(&plan, || report::plan::text(&plan))
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
