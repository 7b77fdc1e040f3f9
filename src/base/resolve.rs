//! Where a target's base comes from: the engine has it, a registry serves it, or the archive makes it.
//!
//! Planning only asks; [`provide`] acts. Either way the base ends up in the engine under a tag of its own per
//! architecture, because a tag of the classic store holds one platform.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::BaseError;
use super::bootstrap::{self, BaseArchive};
use crate::cli::BootstrapMode;
use crate::config::Distro;
use crate::engine::{Engine, EngineError, EngineImage};
use crate::platform::Platform;
use crate::progress::Progress;

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
    /// The tag in the engine that the build starts from.
    pub engine_tag: String,
    /// Where the engine has it under now, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
}

/// A base that is in the engine.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// For `FROM`.
    pub engine_tag: String,
    pub name: String,
    /// Digest of the manifest or index in the registry; of the archive's manifest for a bootstrapped one.
    pub digest: Option<String>,
    /// Its layers: they keep their bytes in the image.
    pub diff_ids: Vec<String>,
}

/// What is asked for, for one distro.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub distro_name: &'a str,
    pub distro: &'a Distro,
    /// `--base`.
    pub base: Option<&'a str>,
    pub mode: BootstrapMode,
}

impl Request<'_> {
    fn tag(&self, platform: Platform, origin: &str) -> String {
        format!("obgp-build/base:{}-{}-{origin}", self.distro_name, platform.architecture().name())
    }

    /// The reference in a registry that the base has, or would have.
    fn reference(&self) -> &str {
        self.base.unwrap_or(&self.distro.base)
    }
}

/// Decides where the base comes from. Asks the engine only: whether a registry answers is found out by [`provide`].
pub async fn plan(engine: &Engine, request: &Request<'_>, platform: Platform) -> Result<BasePlan, EngineError> {
    let planned = |origin, name: &str, engine_tag: &str, found: Option<&EngineImage>| BasePlan {
        platform,
        origin,
        name: name.to_string(),
        engine_tag: engine_tag.to_string(),
        engine_image: found.map(|image| image.id.clone()),
    };
    let bootstrapped = request.tag(platform, "bootstrap");
    let pulled = request.tag(platform, "registry");
    let has = async |name: &str| Ok::<_, EngineError>(engine.inspect_image(name).await?.filter(|image| image.is_for(platform)));
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
    if request.mode != BootstrapMode::Never
        && let Some(image) = has(&bootstrapped).await?
    {
        return Ok(planned(Origin::Engine, &archive_name, &bootstrapped, Some(&image)));
    }
    Ok(match request.mode {
        BootstrapMode::Always => planned(Origin::Bootstrap, &archive_name, &bootstrapped, None),
        BootstrapMode::Auto | BootstrapMode::Never => planned(Origin::Registry, request.reference(), &pulled, None),
    })
}

/// Puts a planned base into the engine, and says what it is. With `--bootstrap auto` a registry that does not answer
/// leads to the archive; when that fails too, the error tells of both.
pub async fn provide(
    engine: &Engine,
    request: &Request<'_>,
    plan: &BasePlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    match plan.origin {
        Origin::Engine => found(engine, plan, None).await,
        Origin::Bootstrap => make(engine, request, plan, progress, cancel).await,
        Origin::Registry => match pull(engine, request, plan, progress, cancel).await {
            Ok(base) => Ok(base),
            Err(error @ BaseError::Cancelled) => Err(error),
            Err(error) if request.base.is_some() || request.mode == BootstrapMode::Never => {
                Err(BaseError::exhausted(request.distro_name, plan, Some(error), None))
            }
            Err(registry) => {
                progress.note(&format!("{registry}; making the base from the archive instead"));
                let plan = BasePlan {
                    name: bootstrap::name(request.distro),
                    engine_tag: request.tag(plan.platform, "bootstrap"),
                    ..plan.clone()
                };
                match make(engine, request, &plan, progress, cancel).await {
                    Err(BaseError::Cancelled) => Err(BaseError::Cancelled),
                    Err(archive) => Err(BaseError::exhausted(request.distro_name, &plan, Some(registry), Some(archive))),
                    done => done,
                }
            }
        },
    }
}

async fn pull(
    engine: &Engine,
    request: &Request<'_>,
    plan: &BasePlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    progress.step(&format!("pulling {}", request.reference()));
    tokio::select! {
        pulled = engine.pull(request.reference(), plan.platform, progress) => pulled?,
        () = cancel.cancelled() => return Err(BaseError::Cancelled),
    };
    engine.tag(request.reference(), &plan.engine_tag).await?;
    found(engine, plan, None).await
}

async fn make(
    engine: &Engine,
    request: &Request<'_>,
    plan: &BasePlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let archive = bootstrap::bootstrap(request.distro_name, request.distro, plan.platform, progress, cancel).await?;
    load(engine, &archive, &plan.engine_tag, progress).await?;
    found(engine, plan, Some(archive.digest)).await
}

/// Loads a bootstrapped base into the engine under `tag`.
pub async fn load(engine: &Engine, archive: &BaseArchive, tag: &str, progress: &dyn Progress) -> Result<(), BaseError> {
    progress.step("loading the base into the engine");
    let file = tokio::fs::File::open(&archive.path).await.map_err(|e| BaseError::cache(&archive.path, e))?;
    engine.load(tokio_util::io::ReaderStream::with_capacity(file, 1 << 20)).await?;
    engine.tag(&archive.image_name, tag).await?;
    Ok(())
}
