//! A plan -> images in the layout, each with its verdict, and published if the person wants it: every target side by side on
//! its builder, then one index per image.

mod bases;
mod finish;
mod ingest;
mod judge;
pub mod result;
pub mod smoke;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::bases::Bases;
use self::result::{ImageReport, Outcome};
use self::target::Finished;
use crate::base::lookup::Lookup;
use crate::builders::Builders;
use crate::image::state::State;
use crate::layout::{Compression, Layout};
use crate::plan::host_env::Host;
use crate::plan::{ImagePlan, Settings};
use crate::progress::Lines;
use crate::registry::Registries;
use crate::sign::Key;
use crate::util::cancel::Interrupted;
use crate::util::errors::render;
use crate::verify::Contract;
use crate::verify::memory::Memory;

/// Images that are read from their builders at a time. One keeps all cores busy for the last part only and waits for its
/// engine before; of memory each takes some 50 MiB.
const INGESTS: usize = 2;

/// How the images are built, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the layout and the reports.
    pub output: PathBuf,
    /// Run every build step again.
    pub no_cache: bool,
    /// Run the built image on its engine too.
    pub smoke: bool,
    pub compression: Compression,
    /// Push what passed, under the image's name.
    pub push: bool,
    /// Further tags for what is pushed.
    pub extra_tags: Vec<String>,
    /// A URI, as the provenance has it.
    pub builder_id: String,
}

/// What the targets of a run share.
pub struct Inputs {
    pub settings: Settings,
    pub options: Options,
    pub contract: Contract,
    pub builders: Arc<Builders>,
    /// What is pushed is signed with it.
    pub key: Option<Arc<Key>>,
    pub host: Host,
    /// Knows what the plan found in registries.
    pub lookup: Lookup,
    pub registries: Registries,
    pub layout: Arc<Layout>,
    pub lines: Arc<dyn Lines>,
    pub cancel: CancellationToken,
}

/// Builds every target of `images`, and publishes the images if the options say so. At most `jobs` solves run at a time.
/// A target that fails is in its image's report; an error is what ends the whole run.
pub async fn build(inputs: Inputs, images: Vec<ImagePlan>, jobs: usize) -> anyhow::Result<Vec<ImageReport>> {
    let build = Arc::new(Build {
        cache: crate::base::cache_directory(),
        state: State::new(&inputs.options.output),
        memory: Memory::new(&inputs.options.output),
        jobs: Semaphore::new(jobs),
        ingests: Semaphore::new(INGESTS),
        bases: Bases::default(),
        inputs,
    });
    build.build_all(images).await
}

/// `dist/oci`.
pub fn layout_dir(output: &Path) -> PathBuf {
    output.join("oci")
}

struct Build {
    inputs: Inputs,
    bases: Bases,
    /// Where bootstrapped bases are kept.
    cache: PathBuf,
    state: State,
    memory: Memory,
    /// Solves, and bases being made, at a time, whatever the builders' slots would allow.
    jobs: Semaphore,
    ingests: Semaphore,
}

impl Build {
    async fn build_all(self: &Arc<Self>, images: Vec<ImagePlan>) -> anyhow::Result<Vec<ImageReport>> {
        let images: Vec<Arc<ImagePlan>> = images.into_iter().map(Arc::new).collect();
        let mut running = JoinSet::new();
        for (i, image) in images.iter().enumerate() {
            for t in 0..image.targets.len() {
                let (build, image) = (Arc::clone(self), Arc::clone(image));
                // In order, and before any of them runs: so a target goes where the plan says, and where it went last
                // time, as long as there are slots.
                let lease = self.inputs.builders.try_lease(image.targets[t].platform);
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
        if self.inputs.cancel.is_cancelled() {
            return Err(Interrupted.into());
        }
        let mut reports = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let targets = (0..image.targets.len())
                .filter_map(|t| results.remove(&(i, t)))
                .collect();
            let (mut report, ready) = self.finish_image(image, targets)?;
            if let Some(ready) = ready.filter(|_| self.inputs.options.push) {
                match self.publish(image, ready).await {
                    Ok(published) => report.published = Some(published),
                    Err(_) if self.inputs.cancel.is_cancelled() => return Err(Interrupted.into()),
                    Err(error) => {
                        report.outcome = Outcome::Failed;
                        report.error = Some(render(&error));
                    }
                }
            }
            reports.push(report);
        }
        Ok(reports)
    }
}
