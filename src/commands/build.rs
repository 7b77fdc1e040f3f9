//! `obgp-build [build]`: bases, then every target side by side, then one index per image.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::io::SyncIoBridge;

use super::image::{contract_path, layout_dir};
use super::publishing::{self, PendingKey, tell_zuul};
use super::{Context, Failure};
use crate::attest::{ImageForSbom, Subject, provenance};
use crate::base;
use crate::base::resolve::{self, BaseImage, BasePlan};
use crate::buildkit::{self, SecretBytes, SolveRequest, Solved};
use crate::cli::{BuildArgs, BuildOptions, CompressionArg};
use crate::config::Settings;
use crate::context::DOCKERFILE;
use crate::engine::{Engine, EngineImage};
use crate::host::Host;
use crate::layout::{self, Compression, IngestOptions, Layout, ReadOptions, Tree};
use crate::plan::{self, EnginePlan, ImagePlan, Surroundings, Target};
use crate::progress::{Progress, SharedProgress};
use crate::publish::{self, Destination, Published};
use crate::registry::{ImageReference, RepositoryName};
use crate::report::result::{BaseReport, BuildReport, Built, ImageReport, Outcome, PlatformReport};
use crate::report::{html, text};
use crate::sign::{Attestation, Key};
use crate::smoke;
use crate::state::{self, Remembered, State};
use crate::verify::{self, Contract, Expectation, ImageUnderTest, Verdict, Verified};

/// How often a solve that fails for a passing reason is tried.
const ATTEMPTS: u32 = 3;

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let (started, instant) = (Timestamp::now(), Instant::now());
    let options = args.options.clone();
    if options.publish.sign.is_some() && !options.push {
        return Err(Failure::Usage(anyhow!(
            "--sign signs what is pushed: add --push, or sign later with `obgp-build sign`"
        )));
    }
    let key = PendingKey::load(options.publish.sign.as_deref());
    let mut file = context.build_file()?;
    file.image.labels.extend(options.label.iter().cloned());
    let settings = Settings::new(file, &args.target)?;
    let contract = Contract::load(&contract_path(&settings.file))?;
    let engine = context.unless_cancelled(Engine::from_env()).await??;
    let host = Host::from_env();
    let plan = {
        let progress = context.terminal.line("plan");
        let around = Surroundings {
            host: &host,
            progress: progress.as_ref(),
            cancel: &context.cancel,
        };
        context
            .unless_cancelled(plan::plan(&settings, &engine, around))
            .await??
    };
    let layout = Layout::open_or_create(layout_dir(&options.output))?;
    let key = key.ready().await?;
    let jobs = options.jobs.map_or_else(default_jobs, usize::from);
    let builder = Arc::new(Builder {
        host,
        cache: base::cache_directory(),
        state: State::new(&options.output),
        jobs: Semaphore::new(jobs),
        ingests: Semaphore::new(1),
        context: context.clone(),
        layout,
        engine,
        engine_plan: plan.engine,
        contract,
        options,
        settings,
        key,
    });
    let images = builder.build_all(plan.images).await?;
    let published: Vec<Published> = images.iter().filter_map(|image| image.published.clone()).collect();
    tell_zuul(&builder.options.publish, &published)?;
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        engine: format!("{} at {}", builder.engine_plan.version, builder.engine_plan.endpoint),
        started: started.to_string(),
        seconds: instant.elapsed().as_secs_f64(),
        images,
    };
    let written = write_reports(&builder.options.output, &report)?;
    context.print(&report, || text::build(&report))?;
    context.terminal.tell(&format!("report: {}", written.display()));
    match report.outcome() {
        Outcome::Done => Ok(()),
        Outcome::BreaksContract => Err(Failure::Contract),
        Outcome::Failed => Err(anyhow!("not everything was done, see above").into()),
    }
}

/// A target waits for the network as often as it computes.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().max(2))
}

struct Builder {
    context: Context,
    settings: Settings,
    options: BuildOptions,
    contract: Contract,
    engine: Engine,
    engine_plan: EnginePlan,
    /// What is pushed is signed with it.
    key: Option<Arc<Key>>,
    host: Host,
    /// Where bootstrapped bases are kept.
    cache: PathBuf,
    layout: Layout,
    state: State,
    /// Solves, and bases being made, at a time.
    jobs: Semaphore,
    /// An ingest takes all cores, and its memory is bounded: one at a time.
    ingests: Semaphore,
}

/// A base that several targets wait for.
type PendingBase = Shared<BoxFuture<'static, Result<BaseImage, String>>>;

/// What a target's stages stand on.
struct Bases<T = BaseImage> {
    image: T,
    build: T,
    runtime: Option<T>,
}

type PendingBases = Bases<PendingBase>;

impl PendingBases {
    async fn ready(self) -> Result<Bases, String> {
        let runtime = async move {
            match self.runtime {
                Some(base) => base.await.map(Some),
                None => Ok(None),
            }
        };
        let (image, build, runtime) = tokio::join!(self.image, self.build, runtime);
        Ok(Bases {
            image: image?,
            build: build?,
            runtime: runtime?,
        })
    }
}

/// A target that was built and judged.
struct Finished {
    manifest: Descriptor,
    built: Built,
    /// Empty if nothing is signed.
    attestations: Vec<Attestation>,
}

/// A tagged image that may be published.
struct Ready {
    index: Verified<Descriptor>,
    manifests: Vec<Descriptor>,
    attestations: Vec<Attestation>,
}

impl Builder {
    async fn build_all(self: &Arc<Self>, images: Vec<ImagePlan>) -> Result<Vec<ImageReport>, Failure> {
        let images: Vec<Arc<ImagePlan>> = images.into_iter().map(Arc::new).collect();
        let bases = self.start_bases(&images);
        let mut running = JoinSet::new();
        for (i, image) in images.iter().enumerate() {
            for t in 0..image.targets.len() {
                let (builder, image) = (Arc::clone(self), Arc::clone(image));
                let of = |plan: &BasePlan| bases[&plan.engine_tag].clone();
                let bases = PendingBases {
                    image: of(&image.targets[t].base),
                    build: of(&image.build_base),
                    runtime: image.targets[t].runtime.base().map(of),
                };
                running.spawn(async move {
                    let started = Instant::now();
                    let result = builder.build_target(&image, &image.targets[t], bases).await;
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

    /// Every base once, however many targets stand on it. They begin at once, all within `--jobs`.
    fn start_bases(self: &Arc<Self>, images: &[Arc<ImagePlan>]) -> HashMap<String, PendingBase> {
        let mut bases = HashMap::new();
        for image in images {
            let own = image.targets.iter().map(|t| &t.base).chain([&image.build_base]);
            let own = own.map(|plan| (&image.distro, self.settings.base.as_ref(), plan));
            let runtime = image.targets.iter().filter_map(|t| t.runtime.base());
            let runtime = runtime.map(|plan| (&self.settings.file.runtime.distro, None, plan));
            for (distro, base, plan) in own.chain(runtime) {
                bases.entry(plan.engine_tag.clone()).or_insert_with(|| {
                    let (builder, distro, plan) = (Arc::clone(self), distro.clone(), plan.clone());
                    let base = base.cloned();
                    let task = tokio::spawn(async move { builder.provide_base(&distro, base.as_deref(), &plan).await });
                    async move { task.await.map_err(|e| e.to_string())? }.boxed().shared()
                });
            }
        }
        bases
    }

    /// `base` is what `--base` says, for the bases that it is about.
    async fn provide_base(&self, distro: &str, base: Option<&str>, plan: &BasePlan) -> Result<BaseImage, String> {
        let _permit = self.jobs.acquire().await.map_err(|e| e.to_string())?;
        let progress = self.context.terminal.line(&format!("{distro} {} base", plan.platform));
        let request = resolve::Request {
            distro_name: distro,
            distro: self.settings.distro(distro).map_err(|e| e.to_string())?,
            base,
            mode: self.settings.bootstrap,
            cache: &self.cache,
        };
        resolve::provide(&self.engine, &request, plan, progress.as_ref(), &self.context.cancel)
            .await
            .map_err(|e| e.to_string())
    }

    async fn build_target(
        self: Arc<Self>,
        image: &Arc<ImagePlan>,
        target: &Target,
        bases: PendingBases,
    ) -> anyhow::Result<Finished> {
        let bases = bases.ready().await.map_err(|e| anyhow!(e))?;
        let started = Timestamp::now().as_second();
        let progress = self
            .context
            .terminal
            .line(&format!("{} {}", image.distro, target.platform));
        let solved = {
            let _permit = self.jobs.acquire().await?;
            self.solve(image, target, &bases, progress.as_ref()).await?
        };
        let engine_image = self
            .engine
            .inspect_image(&solved.image_id)
            .await?
            .ok_or_else(|| anyhow!("the engine has lost the image it just built: {}", solved.image_id))?;
        let (remembered, unchanged) = self
            .ingest(image, target, &bases.image, &engine_image, started, &progress)
            .await?;
        progress.step("verifying");
        let Remembered {
            manifest,
            uncompressed_bytes,
            built: times,
            tree,
        } = remembered;
        let files = tree.len();
        let (verdict, compressed_bytes, mut attestations) = {
            let (builder, image, manifest) = (Arc::clone(&self), Arc::clone(image), manifest.clone());
            let platform = target.platform;
            spawn_blocking(move || {
                let (verdict, compressed) = builder.judge(&image, platform, &manifest, &tree, uncompressed_bytes)?;
                let sboms = builder.sboms(&image, platform, &manifest, &tree)?;
                Ok::<_, anyhow::Error>((verdict, compressed, sboms))
            })
            .await??
        };
        let smoke = if self.options.smoke {
            let identity = &self.settings.file.user;
            smoke::smoke(
                &self.engine,
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
            attestations.push(self.provenance(image, target, &manifest, &built, &build_base, times)?);
        }
        Ok(Finished {
            built,
            manifest,
            attestations,
        })
    }

    async fn solve(
        &self,
        image: &ImagePlan,
        target: &Target,
        bases: &Bases,
        progress: &dyn Progress,
    ) -> anyhow::Result<Solved> {
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
        let request = SolveRequest {
            context: image.context.clone(),
            dockerfile: DOCKERFILE.to_string(),
            platform: target.platform,
            build_args,
            labels,
            target: None,
            no_cache: self.options.no_cache,
            pull: false,
            secrets: self.secrets()?,
            image_name: target.engine_tag.clone(),
            attempts: ATTEMPTS,
        };
        Ok(buildkit::solve(&self.engine, &request, progress, self.context.cancel.clone()).await?)
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

    /// The target's image in the layout: as it was there, or exported and read in one pass. Says which.
    async fn ingest(
        self: &Arc<Self>,
        image: &Arc<ImagePlan>,
        target: &Target,
        base: &BaseImage,
        engine_image: &EngineImage,
        started: i64,
        progress: &SharedProgress,
    ) -> anyhow::Result<(Remembered, bool)> {
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
            return Ok((remembered, true));
        }
        let _permit = self.ingests.acquire().await?;
        progress.step("exporting into the layout");
        let export = SyncIoBridge::new(self.engine.export(&engine_image.id));
        let (builder, progress) = (Arc::clone(self), Arc::clone(progress));
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
                compression: builder.options.compression.into(),
                labels: BTreeMap::new(),
                expected_size: Some(size),
                read: ReadOptions {
                    keep: &verify::keeps,
                    ..ReadOptions::default()
                },
            };
            let ingested = layout::ingest(&builder.layout, export, &options, progress.as_ref())?;
            let remembered = Remembered {
                manifest: ingested.manifest,
                uncompressed_bytes: ingested.layers.iter().map(|l| l.uncompressed_size).sum(),
                built: (started, Timestamp::now().as_second()),
                tree: ingested.tree,
            };
            // A cache that cannot be written costs the next run an export, not this one its image.
            if let Err(error) = builder.state.remember(&name, key, &remembered) {
                tracing::warn!(%error, "cannot remember what was built");
            }
            Ok::<_, layout::IngestError>(remembered)
        });
        let remembered = self
            .context
            .unless_cancelled(task)
            .await??
            .context("reading the image from the engine")?;
        Ok((remembered, false))
    }

    /// The verdict on a target, and the bytes of its compressed layers.
    fn judge(
        &self,
        image: &ImagePlan,
        platform: crate::platform::Platform,
        manifest: &Descriptor,
        tree: &Tree,
        uncompressed: u64,
    ) -> anyhow::Result<(Verdict, u64)> {
        let image_manifest: oci_spec::image::ImageManifest = self.layout.read_json(manifest)?;
        let config = self.layout.read_json(image_manifest.config())?;
        let compressed = image_manifest.layers().iter().map(Descriptor::size).sum();
        let lock = std::fs::read_to_string(&image.lock.path)
            .with_context(|| format!("reading {}", image.lock.path.display()))?;
        let under_test = ImageUnderTest {
            platform,
            tree,
            config: &config,
            digest: Some(manifest.digest().to_string()),
            compressed,
            uncompressed,
        };
        let expectation = Expectation {
            identity: &self.settings.file.user,
            distro: self.settings.distro(&image.distro)?,
            project: &self.settings.file.project.name,
            reference: Some(&image.reference),
            labels: &image.labels,
            lock: Some(&lock),
        };
        Ok((self.contract.check(&under_test, &expectation)?, compressed))
    }

    fn repository(&self, image: &ImagePlan) -> anyhow::Result<RepositoryName> {
        Ok(image.name.parse::<ImageReference>()?.repository)
    }

    fn sboms(
        &self,
        image: &ImagePlan,
        platform: crate::platform::Platform,
        manifest: &Descriptor,
        tree: &Tree,
    ) -> anyhow::Result<Vec<Attestation>> {
        if self.key.is_none() {
            return Ok(Vec::new());
        }
        let image_manifest: oci_spec::image::ImageManifest = self.layout.read_json(manifest)?;
        let about = ImageForSbom {
            platform,
            tree,
            config: &self.layout.read_json(image_manifest.config())?,
            digest: Some(manifest.digest().as_ref()),
        };
        publishing::sboms(&self.repository(image)?.to_string(), manifest, &about)
    }

    fn provenance(
        &self,
        image: &ImagePlan,
        target: &Target,
        manifest: &Descriptor,
        built: &Built,
        build_base: &BaseReport,
        (started, finished): (i64, i64),
    ) -> anyhow::Result<Attestation> {
        let run = provenance::Run {
            project: &self.settings.file.project.name,
            builder_id: &self.options.builder_id,
            // One that changes with every run would make another attestation of an image that did not change.
            invocation_id: None,
            engine: &self.engine_plan,
            flags: provenance::Flags {
                no_cache: self.options.no_cache,
                locked: self.settings.locked,
                compression: match self.options.compression {
                    CompressionArg::Gzip => "gzip",
                    CompressionArg::Zstd => "zstd",
                },
                base: self.settings.base.as_deref(),
            },
            build_base: Some(build_base),
            started: Timestamp::from_second(started)?,
            finished: Timestamp::from_second(finished)?,
        };
        let subject = Subject::new(&self.repository(image)?.to_string(), manifest.digest());
        Ok(Attestation {
            statement: provenance::statement(subject, image, target, built, &run)?,
            predicate_type: provenance::PREDICATE_TYPE.to_string(),
            subject: manifest.clone(),
        })
    }

    /// The image under its name, and under the further tags.
    async fn publish(&self, image: &ImagePlan, ready: Ready) -> anyhow::Result<Published> {
        let repository = self.repository(image)?;
        let tags = std::iter::once(&image.tag).chain(&self.options.extra_tag);
        let destinations: Vec<Destination> = tags
            .map(|tag| Destination {
                repository: repository.clone(),
                tag: tag.clone(),
            })
            .collect();
        let mut subjects = vec![Descriptor::clone(&ready.index)];
        subjects.extend(ready.manifests);
        let artifacts = publishing::artifacts(self.key.clone(), &repository, subjects, ready.attestations).await?;
        let registries = self.context.registries(&self.settings.file);
        let progress = self.context.terminal.line(&image.name);
        Ok(publish::publish(
            &self.layout,
            &ready.index,
            &destinations,
            &artifacts,
            &registries,
            progress.as_ref(),
            &self.context.cancel,
        )
        .await?)
    }

    /// Sets the image's tag in the layout if every platform was built and keeps the contract.
    fn finish_image(
        &self,
        image: &ImagePlan,
        targets: Vec<(f64, anyhow::Result<Finished>)>,
    ) -> Result<(ImageReport, Option<Ready>), Failure> {
        let mut platforms = Vec::new();
        let mut manifests = Vec::new();
        let mut attestations = Vec::new();
        for (target, (seconds, result)) in image.targets.iter().zip(targets) {
            let (error, built) = match result {
                Ok(finished) => {
                    manifests.push(finished.manifest);
                    attestations.extend(finished.attestations);
                    (None, Some(finished.built))
                }
                Err(error) => (Some(super::render(&error)), None),
            };
            platforms.push(PlatformReport {
                platform: target.platform,
                seconds,
                error,
                built,
            });
        }
        let built: Vec<&Built> = platforms.iter().filter_map(|p| p.built.as_ref()).collect();
        let complete = built.len() == platforms.len();
        let smoked = built.iter().all(|b| b.smoke.iter().all(|s| s.passed));
        let verdicts = built.iter().map(|b| b.verdict.clone()).collect();
        let (outcome, ready) = match Verified::admit(manifests, verdicts) {
            _ if !complete => (Outcome::Failed, None),
            Ok(manifests) if smoked => {
                let index = layout::write_index(&self.layout, &manifests, &image.labels)?;
                self.layout.set_tag(&image.tag, &index)?;
                let ready = Ready {
                    manifests: manifests.to_vec(),
                    index: manifests.map(|_| index),
                    attestations,
                };
                (Outcome::Done, Some(ready))
            }
            _ => (Outcome::BreaksContract, None),
        };
        let layout = format!("oci:{}:{}", layout_dir(&self.options.output).display(), image.tag);
        let report = ImageReport {
            name: image.name.clone(),
            distro: image.distro.clone(),
            reference: image.reference.clone(),
            source: image.source.clone(),
            outcome,
            layout: ready.as_ref().map(|_| layout),
            digest: ready.as_ref().map(|ready| ready.index.digest().to_string()),
            published: None,
            error: None,
            platforms,
        };
        Ok((report, ready))
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
