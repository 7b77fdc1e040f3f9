//! One target: solved by a builder, read into the layout, judged; on another builder if that one dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest, ImageManifest};
use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;

use super::super::image::{terms, verdict_key};
use super::Build;
use super::bases::TargetBases;
use crate::base::resolve::BaseImage;
use crate::builders::{Builder, Lease, Slot};
use crate::buildkit::{self, SecretBytes, SolveRequest, Solved};
use crate::context::DOCKERFILE;
use crate::engine::EngineImage;
use crate::layout::{self, IngestOptions, ReadOptions, Tree};
use crate::plan::{self, ImagePlan, Target};
use crate::platform::Platform;
use crate::progress::SharedProgress;
use crate::report::result::{BaseReport, Built};
use crate::sign::Attestation;
use crate::smoke;
use crate::state::{self, Remembered};
use crate::verify::{self, Expectation, ImageUnderTest, Passed, Verdict};

/// How often a solve that fails for a passing reason is tried.
const ATTEMPTS: u32 = 3;

/// A target that was built and judged.
pub(super) struct Finished {
    pub manifest: Descriptor,
    pub built: Built,
    /// Empty if nothing is signed.
    pub attestations: Vec<Attestation>,
}

/// What was found out about a target's image.
struct Judged {
    verdict: Verdict,
    compressed_bytes: u64,
    /// Its SBOMs; empty if nothing is signed.
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
        let progress = self.context.terminal.line(&format!("{} {platform}", image.distro));
        loop {
            let Lease { builder, slot } = match lease.take() {
                Some(lease) => lease,
                None => self.context.unless_cancelled(self.builders.lease(platform)).await??,
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
            if self.context.cancel.is_cancelled() || builder.engine.answers().await {
                return Err(error);
            }
            let reason = error.to_string().lines().next().unwrap_or_default().to_string();
            if let Err(nobody) = self.builders.bury(&builder, &reason, platform) {
                return Err(match self.settings.builders.is_empty() {
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
        if !self.settings.builders.is_empty() {
            progress.step(&format!("on builder {}", builder.name));
        }
        let bases = self.bases_of(image, target, builder).await?;
        let started = Timestamp::now().as_second();
        let solved = {
            let _permit = self.jobs.acquire().await?;
            self.solve(job, &bases).await?
        };
        drop(slot);
        let engine_image = builder
            .engine
            .inspect_image(&solved.image_id)
            .await?
            .ok_or_else(|| anyhow!("the engine has lost the image it just built: {}", solved.image_id))?;
        let (remembered, tree) = self.ingest(job, &bases.image, &engine_image, started).await?;
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
        let smoke = if self.options.smoke {
            let identity = &self.settings.file.user;
            smoke::smoke(
                &builder.engine,
                &engine_image.id,
                target.platform,
                identity,
                progress.as_ref(),
                &self.context.cancel,
            )
            .await?
        } else {
            Vec::new()
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
            engine_image: target.engine_tag.clone(),
            base: BaseReport {
                name: bases.image.name,
                digest: bases.image.digest,
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
        if self.key.is_some() {
            let build_base = BaseReport {
                name: bases.build.name,
                digest: bases.build.digest,
            };
            attestations.push(self.provenance(job, &manifest, &built, &build_base, times)?);
        }
        Ok(Finished {
            built,
            manifest,
            attestations,
        })
    }

    async fn solve(&self, job: Job<'_>, bases: &TargetBases) -> anyhow::Result<Solved> {
        let Job {
            builder, image, target, ..
        } = job;
        let base = &bases.image;
        let mut labels = image.labels.clone();
        labels.insert("org.opencontainers.image.base.name".into(), base.name.clone());
        if let Some(digest) = &base.digest {
            labels.insert("org.opencontainers.image.base.digest".into(), digest.clone());
        }
        let mut build_args = image.build_args(
            &self.settings,
            &plan::Bases {
                image: &base.engine_tag,
                build: &bases.build.engine_tag,
                runtime: bases.runtime.as_ref().map(|base| base.engine_tag.as_str()),
            },
        );
        build_args.extend(self.host.proxies.clone());
        let mut cache = target.cache.clone();
        cache
            .to
            .retain(|entry| entry.kind.can_be_written_by(builder.engine.info()));
        let request = SolveRequest {
            context: image.context.clone(),
            dockerfile: DOCKERFILE.to_string(),
            platform: target.platform,
            build_args,
            labels,
            target: None,
            no_cache: self.options.no_cache,
            pull: false,
            cache,
            secrets: self.secrets()?,
            image_name: target.engine_tag.clone(),
            attempts: ATTEMPTS,
        };
        Ok(buildkit::solve(
            &builder.engine,
            &request,
            job.progress.as_ref(),
            self.context.cancel.clone(),
        )
        .await?)
    }

    fn secrets(&self) -> anyhow::Result<BTreeMap<String, SecretBytes>> {
        let mut secrets = BTreeMap::new();
        if let Some(path) = &self.host.ca_bundle {
            let bundle = std::fs::read(path).with_context(|| format!("reading the CA bundle {}", path.display()))?;
            secrets.insert("ca".to_string(), SecretBytes(bundle.into()));
        }
        if let Some(index) = &self.host.pip_index {
            secrets.insert("pip_index".to_string(), SecretBytes(index.clone().into()));
        }
        Ok(secrets)
    }

    /// The target's image in the layout: as it was there, or exported and read, with its files, in one pass.
    async fn ingest(
        self: &Arc<Self>,
        job: Job<'_>,
        base: &BaseImage,
        engine_image: &EngineImage,
        started: i64,
    ) -> anyhow::Result<(Remembered, Option<Tree>)> {
        let Job {
            builder,
            image,
            target,
            progress,
        } = job;
        let name = format!("{}-{}", image.tag, target.platform.slug());
        let key = state::key(&[
            &engine_image.id,
            &image.source_date_epoch.to_string(),
            &base.diff_ids.join(" "),
            &format!("{:?}", self.options.compression),
        ]);
        if let Some(remembered) = self.state.recall(&name, &key)
            && self.layout.holds(&remembered.manifest)
        {
            return Ok((remembered, None));
        }
        let _permit = self.ingests.acquire().await?;
        progress.step("exporting into the layout");
        let export = SyncIoBridge::new(builder.engine.export(&engine_image.id));
        let (build, progress) = (Arc::clone(self), Arc::clone(progress));
        let (platform, epoch, size) = (target.platform, image.source_date_epoch, engine_image.size);
        let base_diff_ids = base
            .diff_ids
            .iter()
            .map(|d| d.parse())
            .collect::<Result<Vec<Digest>, _>>()?;
        let task = spawn_blocking(move || {
            let options = IngestOptions {
                platform,
                base_diff_ids,
                source_date_epoch: epoch,
                compression: build.options.compression.into(),
                labels: BTreeMap::new(),
                expected_size: Some(size),
                read: read_options(),
            };
            let ingested = layout::ingest(&build.layout, export, &options, progress.as_ref())?;
            let remembered = Remembered {
                manifest: ingested.manifest,
                uncompressed_bytes: ingested.layers.iter().map(|l| l.uncompressed_size).sum(),
                built: (started, Timestamp::now().as_second()),
                files: ingested.tree.len(),
            };
            // A cache that cannot be written costs the next run an export, not this one its image.
            if let Err(error) = build.state.remember(&name, key, &remembered, &ingested.tree) {
                tracing::warn!(%error, "cannot remember what was built");
            }
            Ok::<_, layout::IngestError>((remembered, ingested.tree))
        });
        let (remembered, tree) = self
            .context
            .unless_cancelled(task)
            .await??
            .context("reading the image from the engine")?;
        Ok((remembered, Some(tree)))
    }

    /// Judges a target. What was judged before by all the same is not judged again, and its files are not looked at if
    /// nothing else wants them.
    fn judge(
        &self,
        image: &ImagePlan,
        platform: Platform,
        remembered: &Remembered,
        tree: Option<Tree>,
    ) -> anyhow::Result<Judged> {
        let manifest = &remembered.manifest;
        let digest = manifest.digest().to_string();
        let image_manifest: ImageManifest = self.layout.read_json(manifest)?;
        let compressed_bytes = image_manifest.layers().iter().map(Descriptor::size).sum();
        let lock = std::fs::read_to_string(&image.lock.path)
            .with_context(|| format!("reading {}", image.lock.path.display()))?;
        // Without it nothing is remembered.
        let terms = self
            .verdict_terms(image, &lock)
            .inspect_err(|error| tracing::debug!(%error, "cannot tell what decides the verdict"));
        let key = terms.ok().map(|terms| verdict_key(&terms, platform, &digest));
        let known = key.and_then(|key| self.state.recall_verdict(&key)?.of(platform, digest.clone()));
        if tree.is_none()
            && self.key.is_none()
            && let Some(verdict) = known
        {
            return Ok(Judged {
                verdict,
                compressed_bytes,
                attestations: Vec::new(),
            });
        }
        let tree = match tree.or_else(|| Some(self.state.recall_tree(&digest)?.1)) {
            Some(tree) => tree,
            None => layout::read_image(&self.layout, manifest, &read_options())?.tree,
        };
        let config = self.layout.read_json(image_manifest.config())?;
        let verdict = match known {
            Some(verdict) => verdict,
            None => {
                let under_test = ImageUnderTest {
                    platform,
                    tree: &tree,
                    config: &config,
                    digest: Some(digest),
                    compressed: compressed_bytes,
                    uncompressed: remembered.uncompressed_bytes,
                };
                let expectation = Expectation {
                    identity: &self.settings.file.user,
                    distro: self.settings.distro(&image.distro)?,
                    project: &self.settings.file.project.name,
                    reference: Some(&image.reference),
                    labels: &image.labels,
                    lock: Some(&lock),
                };
                self.contract.check(&under_test, &expectation)?
            }
        };
        if let (Some(key), Some(passed)) = (key, Passed::new(&verdict))
            && let Err(error) = self.state.remember_verdicts(vec![(key, passed)])
        {
            tracing::debug!(%error, "cannot remember the verdict");
        }
        Ok(Judged {
            attestations: self.sboms(image, platform, manifest, &config, &tree)?,
            verdict,
            compressed_bytes,
        })
    }

    /// Everything besides the image and its platform that decides a verdict of this build, hashed.
    fn verdict_terms(&self, image: &ImagePlan, lock: &str) -> anyhow::Result<[u8; 32]> {
        let more = [
            b"build".to_vec(),
            image.distro.clone().into_bytes(),
            image.reference.clone().into_bytes(),
            serde_json::to_vec(&image.labels)?,
            lock.as_bytes().to_vec(),
        ];
        Ok(terms(&self.settings.file, &self.contract, &more)?)
    }
}

fn read_options() -> ReadOptions<'static> {
    ReadOptions {
        keep: &verify::keeps,
        ..ReadOptions::default()
    }
}
