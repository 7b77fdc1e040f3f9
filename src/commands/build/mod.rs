//! `obgp-build [build]`: every target side by side on its builder, then one index per image.

mod bases;
mod finish;
mod ingest;
mod judge;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::bases::Bases;
use self::target::Finished;
use super::image::{contract_path, layout_dir};
use super::publishing::{PendingKey, tell_zuul};
use super::{Context, Failure};
use crate::base;
use crate::base::lookup::Lookup;
use crate::builders::Builders;
use crate::cli::{BuildArgs, BuildOptions, CompressionArg};
use crate::layout::{Compression, Layout};
use crate::plan::host_env::Host;
use crate::plan::{self, ImagePlan, Settings, Surroundings};
use crate::publish::Published;
use crate::report::result::{BuildReport, ImageReport, Outcome};
use crate::report::{html, text};
use crate::sign::Key;
use crate::state::State;
use crate::verify::Contract;

/// Images that are read from their builders at a time. One keeps all cores busy for the last part only and waits for its
/// engine before; of memory each takes some 50 MiB.
const INGESTS: usize = 2;

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
    let default_slots = options.jobs.map_or_else(default_jobs, usize::from);
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
    let layout = Layout::open_or_create(layout_dir(&options.output))?;
    let key = key.ready().await?;
    let jobs = options.jobs.map_or_else(|| builders.slots(), usize::from);
    let build = Arc::new(Build {
        host,
        cache: base::cache_directory(),
        lookup,
        state: State::new(&options.output),
        jobs: Semaphore::new(jobs),
        ingests: Semaphore::new(INGESTS),
        context: context.clone(),
        layout,
        builders,
        bases: Bases::default(),
        contract,
        options,
        settings,
        key,
    });
    let images = build.build_all(plan.images).await?;
    let published: Vec<Published> = images.iter().filter_map(|image| image.published.clone()).collect();
    tell_zuul(&build.options.publish, &published)?;
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        builders: plan.builders,
        absent: plan.absent,
        started: started.to_string(),
        seconds: instant.elapsed().as_secs_f64(),
        images,
    };
    let written = write_reports(&build.options.output, &report)?;
    context.print(&report, || text::build(&report))?;
    context.terminal.tell(&format!("report: {}", written.display()));
    match report.outcome() {
        Outcome::Done => Ok(()),
        Outcome::BreaksContract => Err(Failure::Contract),
        Outcome::Failed => Err(anyhow!("not everything was done, see above").into()),
    }
}

/// A target waits for the network as often as it computes.
pub(super) fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().max(2))
}

struct Build {
    context: Context,
    settings: Settings,
    options: BuildOptions,
    contract: Contract,
    builders: Arc<Builders>,
    bases: Bases,
    /// What is pushed is signed with it.
    key: Option<Arc<Key>>,
    host: Host,
    /// Where bootstrapped bases are kept.
    cache: PathBuf,
    /// Knows what the plan found in registries.
    lookup: Lookup,
    layout: Layout,
    state: State,
    /// Solves, and bases being made, at a time, whatever the builders' slots would allow.
    jobs: Semaphore,
    ingests: Semaphore,
}

impl Build {
    async fn build_all(self: &Arc<Self>, images: Vec<ImagePlan>) -> Result<Vec<ImageReport>, Failure> {
        let images: Vec<Arc<ImagePlan>> = images.into_iter().map(Arc::new).collect();
        let mut running = JoinSet::new();
        for (i, image) in images.iter().enumerate() {
            for t in 0..image.targets.len() {
                let (build, image) = (Arc::clone(self), Arc::clone(image));
                // In order, and before any of them runs: so a target goes where the plan says, and where it went last
                // time, as long as there are slots.
                let lease = self.builders.try_lease(image.targets[t].platform);
                running.spawn(async move {
                    let started = Instant::now();
                    let result = build.build_target(&image, &image.targets[t], lease).await;
                    ((i, t), started.elapsed().as_secs_f64(), result)
                });
            }
        }
        let mut results: BTreeMap<(usize, usize), (f64, anyhow::Result<Finished>)> = BTreeMap::new();
        while let Some(finished) = running.join_next().await {
            let (target, seconds, result) = finished.context("a target's task ended abnormally")?;
            results.insert(target, (seconds, result));
        }
        // Everything has stopped by itself by now, containers and solves included.
        if self.context.cancel.is_cancelled() {
            return Err(Failure::Interrupted);
        }
        let mut reports = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let targets = (0..image.targets.len())
                .filter_map(|t| results.remove(&(i, t)))
                .collect();
            let (mut report, ready) = self.finish_image(image, targets)?;
            if let Some(ready) = ready.filter(|_| self.options.push) {
                match self.publish(image, ready).await {
                    Ok(published) => report.published = Some(published),
                    Err(_) if self.context.cancel.is_cancelled() => return Err(Failure::Interrupted),
                    Err(error) => {
                        report.outcome = Outcome::Failed;
                        report.error = Some(super::render(&error));
                    }
                }
            }
            reports.push(report);
        }
        Ok(reports)
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

/// `report.json` and `report.html` in the output directory; returns the latter's path.
fn write_reports(output: &Path, report: &BuildReport) -> anyhow::Result<PathBuf> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let page = html::build(report)?;
    let mut last = PathBuf::new();
    for (name, content) in [("report.json", json), ("report.html", page)] {
        last = output.join(name);
        super::write_atomically(&last, content.as_bytes())?;
    }
    Ok(last)
}
