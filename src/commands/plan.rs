//! `obgp-build plan`.

use super::{Context, Failure};
use crate::base::lookup::Lookup;
use crate::builders::{Builders, default_slots};
use crate::cli::TargetArgs;
use crate::plan::host_env::Host;
use crate::plan::{self, Settings, Surroundings};
use crate::report;

pub async fn run(context: &Context, args: &TargetArgs) -> Result<(), Failure> {
    let settings = Settings::new(context.build_file()?, &args.into())?;
    let connecting = Builders::connect(&settings.builders, &settings.file.root, default_slots());
    let builders = context.unless_cancelled(connecting).await??;
    let progress = context.terminal.line("plan");
    let host = Host::from_env();
    let lookup = Lookup::new(
        context.registries(&settings.file),
        settings.bootstrap,
        settings.base.as_deref(),
    );
    let around = Surroundings {
        host: &host,
        lookup: &lookup,
        progress: progress.as_ref(),
        cancel: &context.cancel,
    };
    let plan = context
        .unless_cancelled(plan::plan(&settings, &builders, around))
        .await??;
    drop(progress);
    context.print(&plan, || report::plan::text(&plan))
}
