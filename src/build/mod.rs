//! A plan -> images in the layout, each with its verdict, and published if the caller wants it: every target side by side on
//! its builder, then one index per image.
//!
//! ```text
//! target ─Bases─> bases ─Solver─> image on the builder ─Store─> Image in the layout ─Judging─> Verdict
//!                                                 all targets of an image ─finish─> index ─Publisher─> registry
//! ```
//!
//! Each step is a value with the few inputs that only it needs; [`Run`] is what all of them share.

mod bases;
mod finish;
mod ingest;
mod judge;
mod publisher;
pub mod result;
pub mod smoke;
mod solve;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::result::{ImageReport, Outcome};
use self::target::Finished;
use crate::builders::Builders;
use crate::plan::host_env::Host;
use crate::plan::{ImagePlan, Settings};
use crate::progress::Lines;
use crate::util::cancel::Interrupted;
use crate::util::errors::render;

pub use bases::Bases;
pub use ingest::Store;
pub use judge::Judging;
pub use publisher::Publisher;
pub use solve::Solver;

/// What all steps of a run share.
pub struct Run {
    pub settings: Settings,
    pub host: Host,
    pub lines: Arc<dyn Lines>,
    pub cancel: CancellationToken,
    /// Solves, and bases being made, at a time, whatever the builders' slots would allow.
    pub jobs: Semaphore,
}

/// The steps of a build, in order.
pub struct Build {
    pub run: Arc<Run>,
    pub builders: Arc<Builders>,
    pub bases: Arc<Bases>,
    pub solver: Solver,
    pub store: Arc<Store>,
    pub judging: Judging,
    pub publisher: Publisher,
    /// Run the built images on their engines too.
    pub smoke: bool,
}

/// What came of a target: the seconds that it took, and its image.
type TargetResult = (f64, anyhow::Result<Finished>);

impl Build {
    /// Builds every target of `images`, and publishes the images if the publisher pushes. A target that fails is in its
    /// image's report; an error is what ends the whole run.
    pub async fn images(self: Arc<Self>, images: Vec<ImagePlan>) -> anyhow::Result<Vec<ImageReport>> {
        let images: Vec<Arc<ImagePlan>> = images.into_iter().map(Arc::new).collect();
        for image in &images {
            self.warn_of_lost_platforms(image);
        }
        let mut results = self.targets(&images).await?;
        // Everything has stopped by itself by now, containers and solves included.
        if self.run.cancel.is_cancelled() {
            return Err(Interrupted.into());
        }
        let mut reports = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let targets = (0..image.targets.len())
                .filter_map(|t| results.remove(&(i, t)))
                .collect();
            let (mut report, ready) = self.finish_image(image, targets);
            if let Some(ready) = ready.filter(|_| self.publisher.push) {
                match self.publisher.publish(&self.store, image, ready).await {
                    Ok(published) => report.published = Some(published),
                    Err(_) if self.run.cancel.is_cancelled() => return Err(Interrupted.into()),
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

    /// Builds all targets side by side; the keys are the places of the image and of the target in it.
    async fn targets(
        self: &Arc<Self>,
        images: &[Arc<ImagePlan>],
    ) -> anyhow::Result<BTreeMap<(usize, usize), TargetResult>> {
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
                    ((i, t), (started.elapsed().as_secs_f64(), result))
                });
            }
        }
        let mut results = BTreeMap::new();
        while let Some(finished) = running.join_next().await {
            let (target, result) = finished.context("a target's task ended abnormally")?;
            results.insert(target, result);
        }
        Ok(results)
    }
}
