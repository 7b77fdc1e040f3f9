//! One target: solved by a builder, read into the layout, judged; on another builder if that one dies.

use std::sync::Arc;

use anyhow::anyhow;
use oci_spec::image::Descriptor;
use tokio::task::spawn_blocking;

use super::Build;
use super::bases::TargetBases;
use super::ingest::{Arrived, Incoming, Receiver};
use super::publisher::Making;
use super::result::Built;
use super::smoke::{self, SmokeResult};
use crate::base::BaseReport;
use crate::base::resolve::BaseImage;
use crate::builders::{Builder, Lease, Slot};
use crate::buildkit::Solved;
use crate::engine::EngineImage;
use crate::image::Image;
use crate::plan::{ImagePlan, Target};
use crate::progress::SharedProgress;
use crate::sign::Attestation;
use crate::util::cancel::unless_cancelled;
use crate::verify::Verdict;

/// A target that was built and judged.
pub(super) struct Finished {
    pub manifest: Descriptor,
    pub built: Built,
    /// Empty if nothing is signed.
    pub attestations: Vec<Attestation>,
}

/// A target's image after its solve: in the layout, and in the engine that built it if an engine did.
struct SolvedImage {
    solved: Solved,
    arrived: Arrived,
    engine_image: Option<EngineImage>,
}

struct Judged {
    verdict: Verdict,
    compressed_bytes: u64,
    /// The SBOMs; empty if nothing is signed.
    attestations: Vec<Attestation>,
}

/// A target on the builder whose turn it is.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub builder: &'a Arc<Builder>,
    pub image: &'a Arc<ImagePlan>,
    pub target: &'a Target,
    pub progress: &'a SharedProgress,
}

impl Build {
    /// `lease` is the slot that was free when everything began, if one was.
    pub(super) async fn build_target(
        self: Arc<Self>,
        image: &Arc<ImagePlan>,
        target: &Target,
        mut lease: Option<Lease>,
    ) -> anyhow::Result<Finished> {
        let platform = target.platform;
        let progress = self.run.lines.line(&format!("{} {platform}", image.distro));
        loop {
            let Lease { builder, slot } = match lease.take() {
                Some(lease) => lease,
                None => unless_cancelled(&self.run.cancel, self.builders.lease(platform)).await??,
            };
            let job = Job {
                builder: &builder,
                image,
                target,
                progress: &progress,
            };
            let error = match self.build_on(job, slot).await {
                Ok(finished) => return Ok(finished),
                Err(error) => error,
            };
            // A failed build is one wherever it is tried; a builder that is gone says nothing about the build.
            if self.run.cancel.is_cancelled() || builder.daemon.answers().await {
                return Err(error);
            }
            let reason = error.to_string().lines().next().unwrap_or_default().to_string();
            if let Err(nobody) = self.builders.mark_dead(&builder, &reason, platform) {
                return Err(match self.run.settings.builders.is_empty() {
                    true => error,
                    false => error.context(nobody),
                });
            }
            progress.note(&format!(
                "builder {} is gone ({reason}): {} {platform} goes to another",
                builder.name, image.distro
            ));
        }
    }

    /// The slot is free again after the solve, which is what a builder is busy with.
    async fn build_on(self: &Arc<Self>, job: Job<'_>, slot: Slot) -> anyhow::Result<Finished> {
        let Job {
            builder,
            target,
            progress,
            ..
        } = job;
        if !self.run.settings.builders.is_empty() {
            progress.step(&format!("on builder {}", builder.name));
        }
        let bases = self.bases.of(job).await?;
        let SolvedImage {
            solved,
            arrived,
            engine_image,
        } = self.solve(job, &bases, slot).await?;
        let Arrived {
            remembered,
            image,
            unchanged,
            read_from,
        } = arrived;
        progress.step("verifying");
        let judged = self.judge(job.image, image).await?;
        let smoke = self.smoke(job, engine_image.as_ref()).await?;
        let passed = judged.verdict.passed();
        let built = Built {
            digest: remembered.manifest.digest().to_string(),
            builder: builder.name.clone(),
            emulated: target.platform != builder.native,
            engine_image: engine_image.map(|_| target.engine_tag.clone()),
            base: report(&bases.image),
            steps: solved.steps,
            cached_steps: solved.cached_steps,
            unchanged,
            read_from,
            compressed_bytes: judged.compressed_bytes,
            uncompressed_bytes: remembered.uncompressed_bytes,
            files: remembered.files,
            verdict: judged.verdict,
            smoke,
        };
        let making = Making {
            base: &built.base,
            build_base: &report(&bases.build),
            emulated: built.emulated,
            no_cache: self.solver.no_cache,
            compression: self.store.compression,
            times: remembered.built,
        };
        progress.finish(&result_of(&built, passed));
        let mut attestations = judged.attestations;
        attestations.extend(self.publisher.provenance(job, &remembered.manifest, &making)?);
        Ok(Finished {
            built,
            manifest: remembered.manifest,
            attestations,
        })
    }

    /// An engine keeps the image, which is exported from there. A buildkitd sends it while its solve ends.
    async fn solve(&self, job: Job<'_>, bases: &TargetBases, slot: Slot) -> anyhow::Result<SolvedImage> {
        let incoming = Incoming::new(&self.store, job, &bases.image)?;
        let Some(engine) = job.builder.daemon.engine() else {
            let receiver = Arc::new(Receiver::new(incoming));
            let request = self.solver.request(job, bases, Some(receiver.clone()))?;
            let solved = self.solver.solve(job, &request).await;
            drop(slot);
            let (solved, arrived) = receiver.outcome(solved)?;
            return Ok(SolvedImage {
                solved,
                arrived,
                engine_image: None,
            });
        };
        let request = self.solver.request(job, bases, None)?;
        let solved = self.solver.solve(job, &request).await?;
        drop(slot);
        let image = engine
            .inspect_image(&solved.image_id)
            .await?
            .ok_or_else(|| anyhow!("the engine has lost the image it just built: {}", solved.image_id))?;
        Ok(SolvedImage {
            arrived: incoming.export(engine, &image).await?,
            solved,
            engine_image: Some(image),
        })
    }

    async fn judge(self: &Arc<Self>, plan: &Arc<ImagePlan>, image: Image) -> anyhow::Result<Judged> {
        let (build, plan) = (Arc::clone(self), Arc::clone(plan));
        let task = spawn_blocking(move || {
            let state = &build.store.state;
            Ok(Judged {
                compressed_bytes: image.compressed_size()?,
                verdict: build.judging.verdict(&plan, &image, state)?,
                attestations: build.publisher.sboms(&plan, &image, state)?,
            })
        });
        task.await?
    }

    /// Runs the image in the engine that has it, if the caller wants that.
    async fn smoke(&self, job: Job<'_>, image: Option<&EngineImage>) -> anyhow::Result<Vec<SmokeResult>> {
        match (job.builder.daemon.engine(), image) {
            (Some(engine), Some(image)) if self.smoke => {
                let identity = &self.run.settings.file.user;
                let (progress, cancel) = (job.progress.as_ref(), &self.run.cancel);
                Ok(smoke::smoke(engine, &image.id, job.target.platform, identity, progress, cancel).await?)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The last line of a target.
fn result_of(built: &Built, passed: bool) -> String {
    let what = if passed { "verified" } else { "breaks its contract" };
    match built.nothing_ran() {
        true => format!("unchanged, {what}"),
        false => format!("{what}, {} of {} steps cached", built.cached_steps, built.steps),
    }
}

fn report(base: &BaseImage) -> BaseReport {
    BaseReport {
        name: base.name.clone(),
        digest: Some(base.digest.clone()),
    }
}
