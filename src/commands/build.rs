//! `obgp-build [build]`: bases, then every target side by side, then one index per image.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
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
use super::{Context, Failure};
use crate::base;
use crate::base::resolve::{self, BaseImage, BasePlan};
use crate::buildkit::{self, SecretBytes, SolveRequest, Solved};
use crate::cli::{BuildArgs, BuildOptions, CompressionArg};
use crate::config::Settings;
use crate::context::DOCKERFILE;
use crate::engine::{Engine, EngineImage};
use crate::host::Host;
use crate::layout::{self, Compression, IngestOptions, Layout, ReadOptions, Tree};
use crate::plan::{self, ImagePlan, Surroundings, Target};
use crate::progress::{Progress, SharedProgress};
use crate::report::result::{BaseReport, BuildReport, Built, ImageReport, Outcome, PlatformReport};
use crate::report::{html, text};
use crate::smoke;
use crate::state::{self, Remembered, State};
use crate::verify::{self, Contract, Expectation, ImageUnderTest, Verdict, Verified};

/// How often a solve that fails for a passing reason is tried.
const ATTEMPTS: u32 = 3;

pub async fn run(context: &Context, args: &BuildArgs) -> Result<(), Failure> {
    let (started, instant) = (Timestamp::now(), Instant::now());
    let options = args.options.clone();
    if options.push {
        return Err(Failure::Usage(anyhow!(
            "this version builds and verifies, it does not push yet; push what it leaves in {} with \
             `skopeo copy --all oci:DIR:TAG docker://NAME`",
            layout_dir(&options.output).display()
        )));
    }
    let settings = Settings::new(context.build_file()?, &args.target)?;
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
        contract,
        options,
        settings,
    });
    let images = builder.build_all(plan.images).await?;
    let report = BuildReport {
        version: env!("CARGO_PKG_VERSION"),
        engine: format!("{} at {}", plan.engine.version, plan.engine.endpoint),
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
        Outcome::Failed => Err(anyhow!("not every image was built, see above").into()),
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
            reports.push(self.finish_image(image, targets)?);
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
            .ingest(image, target, &bases.image, &engine_image, &progress)
            .await?;
        progress.step("verifying");
        let Remembered {
            manifest,
            uncompressed_bytes,
            tree,
        } = remembered;
        let files = tree.len();
        let (verdict, compressed_bytes) = {
            let (builder, image, manifest) = (Arc::clone(&self), Arc::clone(image), manifest.clone());
            let platform = target.platform;
            spawn_blocking(move || builder.judge(&image, platform, &manifest, &tree, uncompressed_bytes)).await??
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
        Ok(Finished {
            built: Built {
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
            },
            manifest,
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

    /// Sets the image's tag in the layout if every platform was built and keeps the contract.
    fn finish_image(
        &self,
        image: &ImagePlan,
        targets: Vec<(f64, anyhow::Result<Finished>)>,
    ) -> Result<ImageReport, Failure> {
        let mut platforms = Vec::new();
        let mut manifests = Vec::new();
        for (target, (seconds, result)) in image.targets.iter().zip(targets) {
            let (error, built) = match result {
                Ok(finished) => {
                    manifests.push(finished.manifest);
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
        let (outcome, tagged) = match Verified::admit(manifests, verdicts) {
            _ if !complete => (Outcome::Failed, None),
            Ok(manifests) if smoked => (Outcome::Done, Some(self.tag(image, &manifests)?)),
            _ => (Outcome::BreaksContract, None),
        };
        Ok(ImageReport {
            name: image.name.clone(),
            distro: image.distro.clone(),
            reference: image.reference.clone(),
            source: image.source.clone(),
            outcome,
            layout: tagged
                .as_ref()
                .map(|_| format!("oci:{}:{}", layout_dir(&self.options.output).display(), image.tag)),
            digest: tagged,
            platforms,
        })
    }

    fn tag(&self, image: &ImagePlan, manifests: &Verified<Vec<Descriptor>>) -> Result<String, Failure> {
        let index = layout::write_index(&self.layout, manifests, &image.labels)?;
        self.layout.set_tag(&image.tag, &index)?;
        Ok(index.digest().to_string())
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
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(output)?;
            file.write_all(content.as_bytes())?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
            file.persist(&last).map_err(|e| e.error)?;
            Ok::<_, std::io::Error>(())
        };
        write().with_context(|| format!("writing {}", last.display()))?;
    }
    Ok(last)
}
