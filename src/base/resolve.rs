//! Where a target's base comes from: the engine has it, a registry serves it, or the archive makes it.
//!
//! Planning only asks; [`provide`] acts. Either way the base ends up in the engine under a tag of its own per
//! architecture, because a tag of the classic store holds one platform. For a buildkitd, which keeps no images, see
//! [`super::offer`].

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::bootstrap::{self, BootstrapRequest};
use super::cache::{self, BaseArchive};
use super::{Attempt, BaseError, offer};
use crate::buildkit::{Daemon, ImageArchive};
use crate::cli::BootstrapMode;
use crate::config::Distro;
use crate::engine::{Engine, EngineError, EngineImage};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::registry::Registries;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The engine has it already.
    Engine,
    /// To be pulled.
    Registry,
    /// To be made from the distro's archive.
    Bootstrap,
}

/// One platform's base, as planned.
#[derive(Clone, Debug, Serialize)]
pub struct BasePlan {
    pub platform: Platform,
    pub origin: Origin,
    /// What `org.opencontainers.image.base.name` will say.
    pub name: String,
    /// The tag in the engine that the build starts from; what `FROM` says to a buildkitd.
    pub engine_tag: String,
    /// Where the engine has it under now, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
}

/// A base that a build can start from.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// For `FROM`.
    pub from: String,
    pub name: String,
    /// Digest of the manifest or index in the registry; of the archive's manifest for a bootstrapped one.
    pub digest: Option<String>,
    /// Its layers: they keep their bytes in the image.
    pub diff_ids: Vec<String>,
    /// What a buildkitd reads it out of, where it cannot pull it.
    pub archive: Option<Arc<ImageArchive>>,
}

/// What is asked for, for one distro.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub distro_name: &'a str,
    pub distro: &'a Distro,
    /// `--base`.
    pub base: Option<&'a str>,
    pub mode: BootstrapMode,
    /// See [`super::cache_directory`].
    pub cache: &'a Path,
}

impl Request<'_> {
    /// The tag that a pulled base gets in the engine. The distro's own and one given with `--base` must not meet in it.
    fn pulled_tag(&self, platform: Platform) -> String {
        let which = self.base.map_or_else(String::new, |base| {
            format!("-{}", &hex::encode(Sha256::digest(base))[..12])
        });
        format!(
            "obgp-build/base:{}-{}-registry{which}",
            self.distro_name,
            platform.architecture().name()
        )
    }

    /// The reference in a registry that the base has, or would have.
    pub(super) fn reference(&self) -> &str {
        self.base.unwrap_or(&self.distro.base)
    }
}

/// Decides where the base comes from. Asks the engine only: whether a registry answers is found out by [`provide`].
pub async fn plan(daemon: &Daemon, request: &Request<'_>, platform: Platform) -> Result<BasePlan, EngineError> {
    match daemon {
        Daemon::Engine(engine) => plan_in(engine, request, platform).await,
        Daemon::Buildkitd(_) => Ok(offer::plan(request, platform)),
    }
}

async fn plan_in(engine: &Engine, request: &Request<'_>, platform: Platform) -> Result<BasePlan, EngineError> {
    let planned = |origin, name: &str, engine_tag: &str, found: Option<&EngineImage>| BasePlan {
        platform,
        origin,
        name: name.to_string(),
        engine_tag: engine_tag.to_string(),
        engine_image: found.map(|image| image.id.clone()),
    };
    let bootstrapped = bootstrap::engine_tag(request.distro_name, platform);
    let pulled = request.pulled_tag(platform);
    let has = async |name: &str| engine.inspect_image_for(name, platform).await;
    if let Some(base) = request.base {
        return Ok(match has(base).await? {
            Some(image) => planned(Origin::Engine, base, base, Some(&image)),
            None => planned(Origin::Registry, base, &pulled, None),
        });
    }
    let archive_name = bootstrap::name(request.distro);
    if request.mode != BootstrapMode::Always {
        for name in [pulled.as_str(), request.distro.base.as_str()] {
            if let Some(image) = has(name).await? {
                return Ok(planned(Origin::Engine, request.reference(), name, Some(&image)));
            }
        }
    }
    // One that the cache does not know has no digest to be named by: it is taken from the cache again, or made anew.
    if request.mode != BootstrapMode::Never
        && let Some(image) = has(&bootstrapped).await?
        && cache::find(request.cache, request.distro_name, platform, &image.diff_ids).is_some()
    {
        return Ok(planned(Origin::Engine, &archive_name, &bootstrapped, Some(&image)));
    }
    Ok(match request.mode {
        BootstrapMode::Always => planned(Origin::Bootstrap, &archive_name, &bootstrapped, None),
        BootstrapMode::Auto | BootstrapMode::Never => planned(Origin::Registry, request.reference(), &pulled, None),
    })
}

/// Puts a planned base into the engine, or in reach of the buildkitd, and says what it is. With `--bootstrap auto` a
/// registry that does not answer leads to the archive; when that fails too, the error tells of both.
pub async fn provide(
    daemon: &Daemon,
    request: &Request<'_>,
    plan: &BasePlan,
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let no_base = |tried| BaseError::NoBase {
        distro: request.distro_name.to_string(),
        platform: plan.platform,
        tried,
    };
    let archive = || {
        format!(
            "the archive {}",
            super::mirror(request.distro, plan.platform.architecture())
        )
    };
    match (plan.origin, daemon.engine()) {
        (Origin::Engine, Some(engine)) => found(engine, request, plan).await,
        (Origin::Engine, None) | (Origin::Bootstrap, _) => match make(daemon, request, plan, progress, cancel).await {
            Err(error @ BaseError::Unreachable { .. }) => Err(no_base(vec![Attempt::new(archive(), &error)])),
            done => done,
        },
        (Origin::Registry, _) => {
            let error = match pull(daemon, request, plan, registries, progress, cancel).await {
                Err(error) if !matches!(error, BaseError::Cancelled) => error,
                done => return done,
            };
            let registry = Attempt::new(format!("the registry, for {}", request.reference()), &error);
            if request.base.is_some() || request.mode == BootstrapMode::Never {
                return Err(no_base(vec![registry]));
            }
            progress.note(&format!(
                "{} cannot be pulled; making the base from the archive",
                request.reference()
            ));
            let plan = BasePlan {
                name: bootstrap::name(request.distro),
                engine_tag: bootstrap::engine_tag(request.distro_name, plan.platform),
                ..plan.clone()
            };
            match make(daemon, request, &plan, progress, cancel).await {
                Err(error) if !matches!(error, BaseError::Cancelled) => {
                    Err(no_base(vec![registry, Attempt::new(archive(), &error)]))
                }
                done => done,
            }
        }
    }
}

async fn pull(
    daemon: &Daemon,
    request: &Request<'_>,
    plan: &BasePlan,
    registries: &Registries,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let pulling = async {
        let Some(engine) = daemon.engine() else {
            progress.step(&format!("asking the registry for {}", request.reference()));
            return offer::from_registry(request, plan, registries).await;
        };
        progress.step(&format!("pulling {}", request.reference()));
        engine
            .pull(request.reference(), plan.platform, &plan.engine_tag, progress)
            .await?;
        found(engine, request, plan).await
    };
    tokio::select! {
        pulled = pulling => pulled,
        () = cancel.cancelled() => Err(BaseError::Cancelled),
    }
}

async fn make(
    daemon: &Daemon,
    request: &Request<'_>,
    plan: &BasePlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let what = BootstrapRequest {
        distro_name: request.distro_name,
        distro: request.distro,
        platform: plan.platform,
        cache: request.cache,
        refresh: false,
    };
    let archive = bootstrap::bootstrap(&what, progress, cancel).await?;
    match daemon {
        Daemon::Engine(engine) => {
            load(engine, &archive, progress).await?;
            found(engine, request, plan).await
        }
        Daemon::Buildkitd(_) => offer::from_archive(plan, &archive),
    }
}

/// Loads a bootstrapped base into the engine, under its own tag.
pub async fn load(engine: &Engine, archive: &BaseArchive, progress: &dyn Progress) -> Result<(), BaseError> {
    progress.step("loading the base into the engine");
    let file = tokio::fs::File::open(&archive.path)
        .await
        .map_err(|e| BaseError::io("opening", &archive.path, e))?;
    engine
        .load(tokio_util::io::ReaderStream::with_capacity(file, 1 << 20))
        .await?;
    Ok(())
}

/// What the engine has under the planned tag.
async fn found(engine: &Engine, request: &Request<'_>, plan: &BasePlan) -> Result<BaseImage, BaseError> {
    let image = engine
        .inspect_image_for(&plan.engine_tag, plan.platform)
        .await?
        .ok_or_else(|| BaseError::NoBase {
            distro: request.distro_name.to_string(),
            platform: plan.platform,
            tried: vec![Attempt {
                source: format!("the engine, for {}", plan.engine_tag),
                reason: "it is gone".into(),
            }],
        })?;
    let digest = image
        .repo_digests
        .iter()
        .filter(|_| plan.engine_tag != bootstrap::engine_tag(request.distro_name, plan.platform))
        .find_map(|digest| digest.split_once('@').map(|(_, digest)| digest.to_string()))
        .or_else(|| {
            cache::find(request.cache, request.distro_name, plan.platform, &image.diff_ids).map(|base| base.digest)
        });
    Ok(BaseImage {
        from: plan.engine_tag.clone(),
        name: plan.name.clone(),
        digest,
        diff_ids: image.diff_ids,
        archive: None,
    })
}
