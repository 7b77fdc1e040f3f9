//! Resolves the settings into a plan: one target per distro and platform, with every input resolved. Queries the
//! builders' engines, and git for a branch or tag. Starts nothing, but creates a missing lock.

pub(crate) mod build_context;
mod cache;
pub mod dockerfile;
pub mod host_env;
pub mod lock;
pub(crate) mod output;
pub mod patches;
pub mod runtime_binary;
pub(crate) mod settings;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use self::host_env::Host;
use self::lock::{LockError, LockFile, LockRequest};
use self::patches::{Patch, PatchError};
use self::runtime_binary::RuntimePlan;
use self::source::{ProjectError, Source};
use crate::base::lookup::Lookup;
use crate::base::resolve::{self, BasePlan};
use crate::base::{self, BaseError};
use crate::builders::{Absent, Builder, Builders, NoBuilder};
use crate::buildkit::Daemon;
use crate::config::Distro;
use crate::config::cache::{Cache, CacheType};
use crate::config::file::ConfigError;
use crate::oci::{ImageReference, Platform};
use crate::progress::Progress;

pub use settings::Settings;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub builders: Vec<BuilderPlan>,
    /// Builders of build.toml that are unavailable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    pub images: Vec<ImagePlan>,
}

/// A builder: an engine or a buildkitd.
#[derive(Clone, Debug, Serialize)]
pub struct BuilderPlan {
    pub name: String,
    pub kind: BuilderKind,
    pub endpoint: String,
    pub version: String,
    /// The engine's image store; `None` for a buildkitd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The platform that runs without emulation.
    pub native: Platform,
    /// The platforms that it may build.
    pub platforms: Vec<Platform>,
    /// Number of concurrent solves.
    pub slots: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuilderKind {
    /// A Docker engine.
    Engine,
    Buildkitd,
}

impl BuilderKind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Buildkitd => "buildkitd",
        }
    }
}

impl BuilderPlan {
    /// `engine 28.5.2`; without a known version only the kind.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind.name(), self.version).trim_end().to_string()
    }
}

impl From<&Builder> for BuilderPlan {
    fn from(builder: &Builder) -> Self {
        let (kind, version, store) = match &builder.daemon {
            Daemon::Engine(engine) => {
                let info = engine.info();
                (BuilderKind::Engine, info.version.clone(), Some(info.store.to_string()))
            }
            Daemon::Buildkitd(buildkitd) => (BuilderKind::Buildkitd, buildkitd.version().to_string(), None),
        };
        Self {
            name: builder.name.clone(),
            kind,
            endpoint: builder.daemon.endpoint().to_string(),
            version,
            store,
            native: builder.native,
            platforms: builder.platforms.clone(),
            slots: builder.slots,
        }
    }
}

/// The image of one distro.
#[derive(Debug, Serialize)]
pub struct ImagePlan {
    pub distro: String,
    /// `REGISTRY/PREFIX/NAME:TAG`.
    pub name: String,
    /// The tag, also in the layout.
    pub tag: String,
    /// The project ref as requested.
    pub reference: String,
    pub source: Source,
    pub python: String,
    /// The OpenStack release whose upper constraints the lock uses.
    pub constraints: String,
    pub lock: LockPlan,
    /// The patches of the project, in order.
    pub patches: Vec<Patch>,
    /// The latest time in the image, in seconds since 1970.
    pub source_date_epoch: i64,
    /// SHA-256 of the build context, Dockerfile included.
    pub context_digest: String,
    #[serde(skip)]
    pub context: bytes::Bytes,
    pub labels: BTreeMap<String, String>,
    pub targets: Vec<Target>,
}

/// The lock of the image.
#[derive(Clone, Debug, Serialize)]
pub struct LockPlan {
    /// Its file name in `images/<name>/locks/`.
    pub name: String,
    pub path: PathBuf,
    pub digest: String,
    pub distributions: usize,
}

/// One platform of an image, built by one solve.
#[derive(Debug, Serialize)]
pub struct Target {
    pub platform: Platform,
    /// The preferred builder, if it is available and has free slots. Bases and emulation are resolved for it.
    pub builder: String,
    /// The image's name in the engine.
    pub engine_tag: String,
    pub base: BasePlan,
    /// The base of the build stages, for the build platform.
    pub build_base: BasePlan,
    /// Whether the last stage runs under emulation.
    pub emulated: bool,
    pub runtime: RuntimePlan,
    /// With `{distro}` and `{arch}` filled in.
    #[serde(skip)]
    pub cache: Cache,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Dockerfile(#[from] dockerfile::DockerfileError),
    #[error(transparent)]
    Context(#[from] build_context::ContextError),
    #[error(transparent)]
    Patch(#[from] PatchError),
    #[error(transparent)]
    NoBuilder(#[from] NoBuilder),
    #[error(
        "no builder can write a cache of type={}: it needs {}", kind.name(), cache::takes(*kind)
    )]
    CacheExport { kind: CacheType },
}

/// External services and settings for planning.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// For creating a missing lock.
    pub host: &'a Host,
    pub lookup: &'a Lookup,
    pub progress: &'a dyn Progress,
    pub cancel: &'a CancellationToken,
}

pub async fn plan(settings: &Settings, builders: &Builders, around: Surroundings<'_>) -> Result<Plan, PlanError> {
    for absent in builders.absent() {
        around.progress.note(&format!(
            "warning: builder {} is skipped: {}",
            absent.name,
            absent.reason.replace('\n', " ")
        ));
    }
    for builder in builders.members().iter().filter(|b| !b.lacks.is_empty()) {
        let lacks: Vec<String> = builder.lacks.iter().map(Platform::to_string).collect();
        around.progress.note(&format!(
            "warning: builder {} is not used for {}, which build.toml lists for it: it cannot run that platform. \
             `obgp-build doctor` prints the command that registers emulation",
            builder.name,
            lacks.join(", ")
        ));
    }
    let wanted = settings.distros.iter().flat_map(|_| settings.platforms.iter().copied());
    let placed = builders.foresee(wanted)?;
    let mut images = Vec::new();
    for (name, placed) in settings
        .distros
        .iter()
        .zip(placed.chunks(settings.platforms.len().max(1)))
    {
        images.push(plan_image(settings, name, placed, around).await?);
    }
    note_bases(&images, around.progress);
    cache::check(images.iter().flat_map(|i| &i.targets), builders, around.progress)?;
    Ok(Plan {
        builders: builders.members().iter().map(|b| b.as_ref().into()).collect(),
        absent: builders.absent().to_vec(),
        images,
    })
}

/// Prints the reason why a registry is not used, once per base.
fn note_bases(images: &[ImagePlan], progress: &dyn Progress) {
    let mut notes = BTreeSet::new();
    for target in images.iter().flat_map(|image| &image.targets) {
        let bases = [&target.base, &target.build_base];
        for base in bases.into_iter().chain(target.runtime.base()) {
            let Some(reason) = &base.not_from_registry else {
                continue;
            };
            let instead = match base.origin {
                resolve::Origin::Bootstrap => "built from the distro's archive",
                _ => "using the engine's",
            };
            notes.insert(format!(
                "warning: base {} is not from a registry, {instead}: {reason}",
                base.name
            ));
        }
    }
    notes.iter().for_each(|note| progress.note(note));
}

/// The lock of the repository; creates one where it is missing, unless `--locked` is given.
async fn find_or_create_lock(
    settings: &Settings,
    reference: &str,
    source: &Source,
    python: &str,
    around: &Surroundings<'_>,
) -> Result<LockFile, PlanError> {
    let file = &settings.file;
    match lock::find(file, reference, python) {
        Err(LockError::Missing { .. }) if !settings.locked => {
            around
                .progress
                .note(&format!("creating the lock for {reference} on Python {python}"));
            let request = LockRequest {
                file,
                reference,
                source,
                python,
                exclude_newer: settings::lock_moment()?,
            };
            Ok(lock::lock(&request, around.host, around.progress, around.cancel).await?)
        }
        found => Ok(found?),
    }
}

async fn plan_image(
    settings: &Settings,
    name: &str,
    builders: &[Arc<Builder>],
    around: Surroundings<'_>,
) -> Result<ImagePlan, PlanError> {
    let file = &settings.file;
    let distro = settings.distro(name)?;
    let reference = settings.reference_for(distro);
    let series = source::series(file, &reference)?;
    let patches = patches::needed(file, &reference)?;
    let source = source::resolve(file, &reference).await?;
    let lock = find_or_create_lock(settings, &reference, &source, &distro.python, &around).await?;
    let image_name = settings.image_name(name, &reference)?;
    let tag = image_name.tag.clone().unwrap_or_default();
    let cache = base::cache_directory();
    let request = resolve::Request {
        distro_name: name,
        distro,
        base: settings.base.as_deref(),
        mode: settings.bootstrap,
        cache: &cache,
        lookup: around.lookup,
    };
    let mut targets = Vec::new();
    for (platform, builder) in settings.platforms.iter().zip(builders) {
        let (daemon, native) = (&builder.daemon, builder.native);
        targets.push(Target {
            platform: *platform,
            builder: builder.name.clone(),
            engine_tag: engine_tag(&image_name, *platform),
            base: resolve::plan(daemon, &request, *platform).await?,
            build_base: resolve::plan(daemon, &request, native).await?,
            emulated: *platform != native,
            runtime: plan_runtime(settings, daemon, *platform, native, &request).await?,
            cache: settings.cache.for_target(name, *platform),
        });
    }
    let dockerfile = dockerfile::render(name, distro, file)?;
    if let Some(warning) = dockerfile::unused_edit(name, &dockerfile, &file.root) {
        around.progress.note(&warning);
    }
    let context = build_context::build(file, &dockerfile, &in_context(&targets))?;
    // Every pinned distribution was uploaded before this time, and the image depends only on the lock.
    let locked_at = lock.exclude_newer.map_or(0, Timestamp::as_second);
    let source_date_epoch = settings.source_date_epoch.unwrap_or(locked_at);
    let lock = LockPlan {
        name: lock.name,
        path: lock.path,
        digest: lock.digest,
        distributions: lock.pins.len(),
    };
    let mut labels = labels(settings, name, distro, &reference, &source, source_date_epoch);
    labels.extend(patches::label_of(&patches).map(|value| (patches::LABEL.to_string(), value)));
    Ok(ImagePlan {
        distro: name.to_string(),
        name: image_name.to_string(),
        tag,
        labels,
        patches,
        reference,
        source,
        python: distro.python.clone(),
        constraints: series.constraints.clone(),
        lock,
        source_date_epoch,
        context_digest: format!("sha256:{}", hex::encode(Sha256::digest(&context))),
        context,
        targets,
    })
}

/// The given program for the platform, or the sources and the base that compiles them.
async fn plan_runtime(
    settings: &Settings,
    daemon: &Daemon,
    platform: Platform,
    native: Platform,
    image: &resolve::Request<'_>,
) -> Result<RuntimePlan, PlanError> {
    if let Some(prebuilt) = settings.prebuilt.get(&platform) {
        return Ok(RuntimePlan::Prebuilt(prebuilt.clone()));
    }
    let distro_name = &settings.file.runtime.distro;
    let request = resolve::Request {
        distro_name,
        distro: settings.distro(distro_name)?,
        base: None,
        ..*image
    };
    let sources = build_context::sources(&settings.file.root)?;
    Ok(RuntimePlan::Compiled {
        base: resolve::plan(daemon, &request, native).await?,
        sources_digest: format!("sha256:{}", hex::encode(Sha256::digest(&sources))),
    })
}

/// Includes the sources only if a target compiles them: with programs for all platforms, `runtime/` is not needed.
fn in_context(targets: &[Target]) -> build_context::Runtime<'_> {
    let mut runtime = build_context::Runtime::default();
    for target in targets {
        match &target.runtime {
            RuntimePlan::Compiled { .. } => runtime.sources = true,
            RuntimePlan::Prebuilt(prebuilt) => runtime.prebuilt.push((target.platform, prebuilt)),
        }
    }
    runtime
}

/// A tag in the classic image store holds one platform, so each platform has its own tag.
fn engine_tag(image: &ImageReference, platform: Platform) -> String {
    format!("{image}-{}", platform.architecture().name())
}

/// The labels known before the build; the base's labels are added when the base is known.
/// <https://specs.opencontainers.org/image-spec/annotations/>
fn labels(
    settings: &Settings,
    name: &str,
    distro: &Distro,
    reference: &str,
    source: &Source,
    epoch: i64,
) -> BTreeMap<String, String> {
    let mut labels = settings.file.image.labels.clone();
    let mut set = |key: &str, value: String| labels.insert(format!("org.opencontainers.image.{key}"), value);
    set("version", reference.to_string());
    set("revision", source.revision().to_string());
    set("ref.name", format!("{}-{name}", reference.replace('/', "-")));
    if let Ok(created) = Timestamp::from_second(epoch) {
        set("created", created.to_string());
    }
    labels.insert("org.openstack.obgp-build.distro".into(), name.to_string());
    labels.insert("org.openstack.obgp-build.suite".into(), distro.suite.clone());
    labels
}

/// The bases of a target's stages, each by its name in the engine.
#[derive(Clone, Copy, Debug)]
pub struct Bases<'a> {
    pub image: &'a str,
    pub build: &'a str,
    /// `None` if obgp-runtime is not compiled.
    pub runtime: Option<&'a str>,
}

impl ImagePlan {
    /// Separated by spaces.
    fn patch_names(&self) -> String {
        let names: Vec<&str> = self.patches.iter().map(|p| p.name.as_str()).collect();
        names.join(" ")
    }

    /// The Dockerfile's arguments for one target.
    pub fn build_args(&self, settings: &Settings, bases: &Bases) -> BTreeMap<String, String> {
        let user = &settings.file.user;
        let groups = user
            .groups
            .iter()
            .map(|g| format!("{}:{}", g.name, g.gid))
            .collect::<Vec<_>>();
        let mut args = BTreeMap::from([
            ("BASE".to_string(), bases.image.to_string()),
            ("BUILD_BASE".to_string(), bases.build.to_string()),
            ("LOCK".to_string(), self.lock.name.clone()),
            ("PATCHES".to_string(), self.patch_names()),
            ("USER_NAME".to_string(), user.name.clone()),
            ("USER_UID".to_string(), user.uid.to_string()),
            ("USER_GID".to_string(), user.gid.to_string()),
            ("USER_HOME".to_string(), user.home.clone()),
            ("USER_GROUPS".to_string(), groups.join(" ")),
        ]);
        match bases.runtime {
            Some(base) => args.insert("RUNTIME_BASE".into(), base.to_string()),
            None => args.insert("RUNTIME_FROM".into(), "prebuilt".into()),
        };
        let distros = &settings.file.distros;
        for (argument, distro) in [
            ("APT_MIRROR", &self.distro),
            ("RUNTIME_APT_MIRROR", &settings.file.runtime.distro),
        ] {
            if let Some(mirror) = distros.get(distro).and_then(|d| d.mirror.as_ref()) {
                args.insert(argument.into(), mirror.clone());
            }
        }
        match &self.source {
            Source::PyPI { version } => {
                args.insert("PROJECT_VERSION".into(), version.clone());
            }
            Source::Git { url, commit } => {
                args.insert("PROJECT_GIT".into(), url.clone());
                args.insert("PROJECT_REF".into(), self.reference.clone());
                args.insert("PROJECT_COMMIT".into(), commit.clone());
            }
        }
        args
    }
}
