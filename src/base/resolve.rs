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
