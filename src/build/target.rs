//! One target: solved by a builder, read into the layout, judged; on another builder if that one dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use oci_spec::image::Descriptor;
use tokio::task::spawn_blocking;

use super::Build;
use super::bases::TargetBases;
use super::ingest::{Arrived, Incoming, Receiver};
use super::judge::Judged;
use super::result::Built;
use super::smoke;
use super::state::Remembered;
use crate::base::BaseReport;
use crate::builders::{Builder, Lease, Slot};
use crate::buildkit::{self, Receive, SecretBytes, SolveError, SolveRequest, Solved};
use crate::engine::{Engine, EngineImage};
use crate::plan::build_context::DOCKERFILE;
use crate::plan::{self, ImagePlan, Target};
use crate::progress::SharedProgress;
use crate::sign::Attestation;
use crate::util::cancel::unless_cancelled;

/// How often a solve that fails for a passing reason is tried.
const ATTEMPTS: u32 = 3;

/// A target that was built and judged.
pub(super) struct Finished {
    pub manifest: Descriptor,
    pub built: Built,
    /// Empty if nothing is signed.
    pub attestations: Vec<Attestation>,
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
        let progress = self.inputs.lines.line(&format!("{} {platform}", image.distro));
        loop {
            let Lease { builder, slot } = match lease.take() {
                Some(lease) => lease,
                None => unless_cancelled(&self.inputs.cancel, self.inputs.builders.lease(platform)).await??,
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
            if self.inputs.cancel.is_cancelled() || builder.daemon.answers().await {
                return Err(error);
            }
            let reason = error.to_string().lines().next().unwrap_or_default().to_string();
            if let Err(nobody) = self.inputs.builders.mark_dead(&builder, &reason, platform) {
                return Err(match self.inputs.settings.builders.is_empty() {
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
            image,
            target,
            progress,
        } = job;
        if !self.inputs.settings.builders.is_empty() {
            progress.step(&format!("on builder {}", builder.name));
        }
        let bases = self.bases_of(image, target, builder).await?;
        let incoming = Incoming::new(self, job, &bases.image)?;
        let (solved, (remembered, tree), engine_image) = match builder.daemon.engine() {
            Some(engine) => {
                let (solved, arrived, image) = self.build_in(engine, job, &bases, incoming, slot).await?;
                (solved, arrived, Some(image))
            }
            None => {
                let receiver = Arc::new(Receiver::new(incoming));
                let request = self.request(job, &bases, Some(receiver.clone()))?;
                let solved = self.solve(job, &request).await;
                drop(slot);
                let (solved, arrived) = receiver.outcome(solved)?;
                (solved, arrived, None)
            }
        };
        let unchanged = tree.is_none();
        progress.step("verifying");
        let Judged {
            verdict,
            compressed_bytes,
            mut attestations,
        } = {
            let (build, image, remembered) = (Arc::clone(self), Arc::clone(image), remembered.clone());
            let platform = target.platform;
            spawn_blocking(move || build.judge(&image, platform, &remembered, tree)).await??
        };
        let Remembered {
            manifest,
            uncompressed_bytes,
            built: times,
            files,
        } = remembered;
        let smoke = match (builder.daemon.engine(), &engine_image) {
            (Some(engine), Some(image)) if self.inputs.options.smoke => {
                let identity = &self.inputs.settings.file.user;
                let (progress, cancel) = (progress.as_ref(), &self.inputs.cancel);
                smoke::smoke(engine, &image.id, target.platform, identity, progress, cancel).await?
            }
            _ => Vec::new(),
        };
        progress.step(if verdict.passed() {
            "verified"
        } else {
            "breaks its contract"
        });
        let built = Built {
            digest: manifest.digest().to_string(),
            builder: builder.name.clone(),
            emulated: target.platform != builder.native,
            engine_image: engine_image.map(|_| target.engine_tag.clone()),
            base: BaseReport {
                name: bases.image.name,
                digest: Some(bases.image.digest),
            },
            steps: solved.steps,
            cached_steps: solved.cached_steps,
            unchanged,
            compressed_bytes,
            uncompressed_bytes,
            files,
            verdict,
            smoke,
        };
        if self.inputs.key.is_some() {
            let build_base = BaseReport {
                name: bases.build.name,
                digest: Some(bases.build.digest),
            };
            attestations.push(self.provenance(job, &manifest, (built.emulated, &built.base), &build_base, times)?);
        }
        Ok(Finished {
            built,
            manifest,
            attestations,
        })
    }

    /// An engine keeps the image; it is exported from there.
    async fn build_in(
        &self,
        engine: &Engine,
        job: Job<'_>,
        bases: &TargetBases,
        incoming: Incoming,
        slot: Slot,
    ) -> anyhow::Result<(Solved, Arrived, EngineImage)> {
        let request = self.request(job, bases, None)?;
        let solved = self.solve(job, &request).await?;
        drop(slot);
        let image = engine
            .inspect_image(&solved.image_id)
            .await?
            .ok_or_else(|| anyhow!("the engine has lost the image it just built: {}", solved.image_id))?;
        let arrived = incoming.export(engine, &image).await?;
        Ok((solved, arrived, image))
    }

    async fn solve(&self, job: Job<'_>, request: &SolveRequest) -> Result<Solved, SolveError> {
        let Ok(_permit) = self.jobs.acquire().await else {
            return Err(SolveError::Cancelled);
        };
        let cancel = self.inputs.cancel.clone();
        buildkit::solve(&job.builder.daemon, request, job.progress.as_ref(), cancel).await
    }

    fn request(
        &self,
        job: Job<'_>,
        bases: &TargetBases,
        receiver: Option<Arc<dyn Receive>>,
    ) -> anyhow::Result<SolveRequest> {
        let Job {
            builder, image, target, ..
        } = job;
        let base = &bases.image;
        let mut labels = image.labels.clone();
        labels.insert("org.opencontainers.image.base.name".into(), base.name.clone());
        labels.insert("org.opencontainers.image.base.digest".into(), base.digest.clone());
        let mut build_args = image.build_args(
            &self.inputs.settings,
            &plan::Bases {
                image: &base.from,
                build: &bases.build.from,
                runtime: bases.runtime.as_ref().map(|base| base.from.as_str()),
            },
        );
        build_args.extend(self.inputs.host.proxies.clone());
        let mut cache = target.cache.clone();
        cache.to.retain(|entry| entry.kind.can_be_written_by(&builder.daemon));
        let all = [&bases.image, &bases.build].into_iter().chain(&bases.runtime);
        let offered = all.filter_map(|base| Some((base.from.clone(), base.archive.clone()?)));
        Ok(SolveRequest {
            context: image.context.clone(),
            dockerfile: DOCKERFILE.to_string(),
            platform: target.platform,
            build_args,
            labels,
            target: None,
            no_cache: self.inputs.options.no_cache,
            pull: false,
            cache,
            secrets: self.secrets()?,
            image_name: target.engine_tag.clone(),
            receiver,
            bases: offered.collect(),
            attempts: ATTEMPTS,
        })
    }

    fn secrets(&self) -> anyhow::Result<BTreeMap<String, SecretBytes>> {
        let mut secrets = BTreeMap::new();
        if let Some(path) = &self.inputs.host.ca_bundle {
            let bundle = std::fs::read(path).with_context(|| format!("reading the CA bundle {}", path.display()))?;
            secrets.insert("ca".to_string(), SecretBytes(bundle.into()));
        }
        if let Some(index) = &self.inputs.host.pip_index {
            secrets.insert("pip_index".to_string(), SecretBytes(index.clone().into()));
        }
        Ok(secrets)
    }
}
