//! Settings → what will be built, and where: one target per distro and platform, every input resolved. Asks the builders'
//! engines, and git for a ref that is a branch or tag; starts nothing, but makes a lock that is missing.

pub(crate) mod build_context;
mod cache;
pub mod dockerfile;
pub mod host_env;
pub mod lock;
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
use self::lock::{LockError, LockRequest};
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
    /// Builders of build.toml that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    pub images: Vec<ImagePlan>,
}

/// An engine or a buildkitd that builds.
#[derive(Clone, Debug, Serialize)]
pub struct BuilderPlan {
    pub name: String,
    pub kind: BuilderKind,
    pub endpoint: String,
    pub version: String,
    /// The engine's image store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// What it runs without emulation.
    pub native: Platform,
    /// What it may be given.
    pub platforms: Vec<Platform>,
    /// Solves at a time.
    pub slots: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuilderKind {
    /// Docker's.
    Engine,
    Buildkitd,
}

impl BuilderKind {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Buildkitd => "buildkitd",
        }
    }
}

impl BuilderPlan {
    /// `engine 28.5.2`; whoever does not say its version is called by its kind alone.
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

/// One distro's image.
#[derive(Debug, Serialize)]
pub struct ImagePlan {
    pub distro: String,
    /// `REGISTRY/PREFIX/NAME:TAG`.
    pub name: String,
    /// The tag, which is the image's in the layout too.
    pub tag: String,
    /// The project ref as it was asked for.
    pub reference: String,
    pub source: Source,
    pub python: String,
    /// Which OpenStack release's upper constraints the lock honours.
    pub constraints: String,
    pub lock: LockPlan,
    /// The patches that the project gets, in this order.
    pub patches: Vec<Patch>,
    /// Nothing in the image is later than this.
    pub source_date_epoch: i64,
    /// SHA-256 of the build context: the Dockerfile and all it copies.
    pub context_digest: String,
    #[serde(skip)]
    pub context: bytes::Bytes,
    pub labels: BTreeMap<String, String>,
    pub targets: Vec<Target>,
}

/// The pins that the image is made from.
#[derive(Clone, Debug, Serialize)]
pub struct LockPlan {
    /// Its file name in `images/<name>/locks/`.
    pub name: String,
    pub path: PathBuf,
    pub digest: String,
    pub distributions: usize,
}

/// One platform of an image: what one solve makes.
#[derive(Debug, Serialize)]
pub struct Target {
    pub platform: Platform,
    /// Where it goes, as long as that builder lives and has slots before others. Bases and emulation are as there.
    pub builder: String,
    /// The name it gets in the engine.
    pub engine_tag: String,
    pub base: BasePlan,
    /// For the build platform: what the build stages run on.
    pub build_base: BasePlan,
    /// Whether its last stage runs under emulation.
    pub emulated: bool,
    pub runtime: RuntimePlan,
    /// With the target filled in.
    #[serde(skip)]
    pub cache: Cache,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
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
        "no builder can write a cache of type={}: that takes {}", kind.name(), cache::takes(*kind)
    )]
    CacheExport { kind: CacheType },
}

/// What planning needs of the outside.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// To make a lock that is missing.
    pub host: &'a Host,
    pub lookup: &'a Lookup,
    pub progress: &'a dyn Progress,
    pub cancel: &'a CancellationToken,
}

pub async fn plan(settings: &Settings, builders: &Builders, around: Surroundings<'_>) -> Result<Plan, PlanError> {
    for absent in builders.absent() {
        around.progress.note(&format!(
            "warning: builder {} is left out: {}",
            absent.name,
            absent.reason.replace('\n', " ")
        ));
    }
    for builder in builders.members().iter().filter(|b| !b.lacks.is_empty()) {
        let lacks: Vec<String> = builder.lacks.iter().map(Platform::to_string).collect();
        around.progress.note(&format!(
            "warning: builder {} is given no {}, which build.toml lists for it: it cannot run that. \
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

/// Once per base, not per target: why its registry is not used.
fn note_bases(images: &[ImagePlan], progress: &dyn Progress) {
    let mut notes = BTreeSet::new();
    for target in images.iter().flat_map(|image| &image.targets) {
        let bases = [&target.base, &target.build_base];
        for base in bases.into_iter().chain(target.runtime.base()) {
            let Some(reason) = &base.not_from_registry else {
                continue;
            };
            let instead = match base.origin {
                resolve::Origin::Bootstrap => "it is made from the distro's archive",
                _ => "the engine's is used",
            };
            notes.insert(format!(
                "warning: base {} is not from a registry, {instead}: {reason}",
                base.name
            ));
        }
    }
    notes.iter().for_each(|note| progress.note(note));
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
    let lock = match lock::find(file, &reference, &distro.python) {
        Err(LockError::Missing { .. }) if !settings.locked => {
            around.progress.note(&format!(
                "there is no lock for {reference} on Python {}: making it",
                distro.python
            ));
            let exclude_newer = settings::lock_moment()?;
            let request = LockRequest {
                file,
                reference: &reference,
                source: &source,
                python: &distro.python,
                exclude_newer,
            };
            lock::lock(&request, around.host, around.progress, around.cancel).await?
        }
        found => found?,
    };
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
    let context = build_context::build(file, &dockerfile::render(name, distro, file)?, &in_context(&targets))?;
    // What the lock pins was uploaded before this moment, and the image is a function of the lock.
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

/// The program that was given for the platform, or the sources and what they are compiled on.
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

/// Sources only if a target has them compiled: a site that brings all programs needs no `runtime/`.
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

/// A tag of the classic store holds one platform, so each has its own.
fn engine_tag(image: &ImageReference, platform: Platform) -> String {
    format!("{image}-{}", platform.architecture().name())
}

/// What is known of an image before it is built; the base's are added when there is one.
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

/// What a target's stages stand on, each named by what the engine has it under.
#[derive(Clone, Copy, Debug)]
pub struct Bases<'a> {
    pub image: &'a str,
    pub build: &'a str,
    /// `None` where obgp-runtime is not compiled.
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
