//! `obgp-build plan`.

use std::fmt::Write as _;

use super::{Context, Failure};
use crate::base::resolve::BasePlan;
use crate::cli::TargetArgs;
use crate::config::Settings;
use crate::engine::Engine;
use crate::host::Host;
use crate::plan::{self, ImagePlan, Plan, Surroundings};
use crate::project::Source;
use crate::runtime::RuntimePlan;

pub async fn run(context: &Context, args: &TargetArgs) -> Result<(), Failure> {
    let settings = Settings::new(context.build_file()?, args)?;
    let engine = Engine::from_env().await?;
    let progress = context.terminal.line("plan");
    let host = Host::from_env();
    let around = Surroundings {
        host: &host,
        progress: progress.as_ref(),
        cancel: &context.cancel,
    };
    let plan = context
        .unless_cancelled(plan::plan(&settings, &engine, around))
        .await??;
    drop(progress);
    context.print(&plan, || text(&plan))
}

fn text(plan: &Plan) -> String {
    let engine = &plan.engine;
    let mut text = format!(
        "engine {} at {} ({} store, {})\n",
        engine.version, engine.endpoint, engine.store, engine.native
    );
    for image in &plan.images {
        let source = match &image.source {
            Source::PyPI { version } => format!("{version} from PyPI"),
            Source::Git { url, commit } => format!("{} from {url}, commit {commit}", image.reference),
        };
        let _ = writeln!(text, "\n{}", image.name);
        let _ = writeln!(text, "  project      {source}");
        let _ = writeln!(
            text,
            "  lock         {} ({} distributions for Python {})",
            image.lock.name, image.lock.distributions, image.python
        );
        let _ = writeln!(text, "  constraints  OpenStack {}", image.constraints);
        let _ = writeln!(text, "  context      {}", image.context_digest);
        let _ = writeln!(
            text,
            "  dates        no later than {}",
            image.labels["org.opencontainers.image.created"]
        );
        let _ = writeln!(text, "  builders on  {}", base(&image.build_base));
        for line in runtimes(image) {
            let _ = writeln!(text, "  runtime      {line}");
        }
        for target in &image.targets {
            let how = if target.emulated { ", its apt step emulated" } else { "" };
            let _ = writeln!(
                text,
                "  {:<12} {}{how}\n{:15}-> {}",
                target.platform.to_string(),
                base(&target.base),
                "",
                target.engine_tag
            );
        }
    }
    text
}

/// Where obgp-runtime comes from; once for platforms that have it from the same place.
fn runtimes(image: &ImagePlan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in &image.targets {
        let line = match &target.runtime {
            RuntimePlan::Compiled {
                base: on,
                sources_digest,
            } => {
                format!("compiled from {sources_digest} on {}", base(on))
            }
            RuntimePlan::Prebuilt(given) => {
                format!("{} for {}, {}", given.path.display(), target.platform, given.digest)
            }
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn base(base: &BasePlan) -> String {
    use crate::base::resolve::Origin;
    match base.origin {
        Origin::Engine => format!("{} (the engine has it as {})", base.name, base.engine_tag),
        Origin::Registry => format!("{} (from its registry)", base.name),
        Origin::Bootstrap => format!("{} (bootstrapped from the archive)", base.name),
    }
}
