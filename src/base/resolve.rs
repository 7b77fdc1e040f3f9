//! Decides the source of a target's base: a registry, the engine, or the distro's archive; and provides it.
//!
//! Planning only queries: the registry for the digest, then the engine for an image with that digest. [`provide`] acts.
//! In both cases the base has its own tag in the engine, see [`super::kept`]. For a buildkitd, which keeps no images,
//! see [`super::offer`].

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::bootstrap::{self, BootstrapRequest};
use super::cache::BaseArchive;
use super::kept::{self, Source};
use super::lookup::{Lookup, LookupFailure, RegistryImage};
use super::{Attempt, BaseError, offer};
use crate::buildkit::{Daemon, ImageArchive};
use crate::config::{BootstrapMode, Distro};
use crate::engine::{Engine, EngineImage};
use crate::oci::{ImageReference, Platform};
use crate::progress::Progress;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The engine already has it.
    Engine,
    /// Will be pulled.
    Registry,
    /// Will be built from the distro's archive.
    Bootstrap,
}

/// The planned base of one platform.
#[derive(Clone, Debug, Serialize)]
pub struct BasePlan {
    pub platform: Platform,
    pub origin: Origin,
    /// The image's `org.opencontainers.image.base.name`.
    pub name: String,
    /// The tag in the engine that the build starts from; for a buildkitd, the reference in `FROM`.
    pub engine_tag: String,
    /// The image's `org.opencontainers.image.base.digest`; `None` if the base must be built first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image's ID in the engine, if present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
    /// Why the registry is not used, if it was the first choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_from_registry: Option<String>,
}

/// A base that a build can use.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The reference for `FROM`.
    pub from: String,
    pub name: String,
    /// Digest of the manifest or index in the registry; of the archive's manifest for a bootstrapped one.
    pub digest: String,
    /// Its layers; they keep their bytes in the image.
    pub diff_ids: Vec<String>,
    /// The archive that a buildkitd reads, if it cannot pull the base.
    pub archive: Option<Arc<ImageArchive>>,
}

/// The requested base of one distro, from flags and build.toml.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub distro_name: &'a str,
    pub distro: &'a Distro,
    /// `--base`.
    pub base: Option<&'a str>,
    pub mode: BootstrapMode,
    /// See [`super::cache_directory`].
    pub cache: &'a Path,
    pub lookup: &'a Lookup,
}

impl Request<'_> {
    /// The base's reference in a registry.
    pub(super) fn reference(&self) -> &str {
        self.base.unwrap_or(&self.distro.base)
    }

    /// Whether no registry is queried. `--base` names an image, so it never comes from the archive.
    pub(super) fn bootstraps_only(&self) -> bool {
        self.base.is_none() && self.mode == BootstrapMode::Always
    }

    /// Whether the archive may replace an unreachable registry.
    pub(super) fn may_bootstrap(&self) -> bool {
        self.base.is_none() && self.mode != BootstrapMode::Never
    }

    pub(super) fn failed_lookup(&self, failure: &LookupFailure) -> Attempt {
        self.attempt(failure.reason.clone())
    }

    fn attempt(&self, reason: String) -> Attempt {
        Attempt {
            source: format!("the registry, for {}", self.reference()),
            reason,
        }
    }

    pub(super) fn no_base(&self, platform: Platform, tried: Vec<Attempt>) -> BaseError {
        BaseError::NoBase {
            distro: self.distro_name.to_string(),
            platform,
            tried,
        }
    }

    /// A base to bootstrap.
    pub(super) fn bootstrapped(&self, platform: Platform) -> BasePlan {
        BasePlan {
            platform,
            origin: Origin::Bootstrap,
            name: bootstrap::name(self.distro),
            engine_tag: bootstrap::engine_tag(self.distro_name, platform),
            digest: None,
            engine_image: None,
            not_from_registry: None,
        }
    }
}

/// Decides the source of the base. A reference that its registry does not have is an error, unless the engine has an
/// image of that name.
pub async fn plan(daemon: &Daemon, request: &Request<'_>, platform: Platform) -> Result<BasePlan, BaseError> {
    match daemon {
        Daemon::Engine(engine) => plan_in(engine, request, platform).await,
        Daemon::Buildkitd(_) => offer::plan(request, platform).await,
    }
}

async fn plan_in(engine: &Engine, request: &Request<'_>, platform: Platform) -> Result<BasePlan, BaseError> {
    if request.bootstraps_only() {
        return Ok(request.bootstrapped(platform));
    }
    let failure = match from_registry(engine, request, platform).await? {
        Ok(planned) => return Ok(planned),
        Err(failure) => failure,
    };
    let mut tried = vec![request.failed_lookup(&failure)];
    let planned = match in_engine(engine, request, platform, &failure).await? {
        Ok(planned) => Some(planned),
        Err(attempt) => {
            tried.extend(attempt);
            None
        }
    };
    let planned = match planned {
        Some(planned) => planned,
        None if failure.answered || !request.may_bootstrap() => return Err(request.no_base(platform, tried)),
        None => archived(engine, request, platform).await?,
    };
    Ok(BasePlan {
        not_from_registry: Some(failure.reason),
        ..planned
    })
}

/// The registry's image of the reference, pulled or not.
async fn from_registry(
    engine: &Engine,
    request: &Request<'_>,
    platform: Platform,
) -> Result<Result<BasePlan, LookupFailure>, BaseError> {
    let reference = request.reference();
    let digest = match request.lookup.digest(reference).await {
        Ok(digest) => digest,
        Err(failure) if failure.answered => return Ok(Err(failure)),
        Err(failure) => match request.lookup.by_engine(engine, reference).await {
            Ok(digest) => digest,
            Err(_) => return Ok(Err(failure)),
        },
    };
    let planned = |image: Option<EngineImage>, engine_tag| BasePlan {
        platform,
        origin: match image {
            Some(_) => Origin::Engine,
            None => Origin::Registry,
        },
        name: reference.to_string(),
        engine_tag,
        digest: Some(digest.to_string()),
        engine_image: image.map(|image| image.id),
        not_from_registry: None,
    };
    let tag = kept::tag(Source::Reference(reference), platform, digest.as_ref())?;
    if let Some(image) = engine.inspect_image_for(&tag, platform).await? {
        return Ok(Ok(planned(Some(image), tag)));
    }
    let found = match request.lookup.image(reference, platform).await {
        Err(failure) if failure.answered => return Ok(Err(failure)),
        found => found.ok(),
    };
    let own = engine.inspect_image_for(reference, platform).await?;
    let own = own.filter(|image| match &found {
        Some(found) => is_same(image, found),
        None => repository_digest(image, reference).as_deref() == Some(digest.as_ref()),
    });
    Ok(Ok(planned(own, tag)))
}

/// Whether the engine's image is the registry's image. Its ID is a digest in both types of store.
fn is_same(image: &EngineImage, found: &RegistryImage) -> bool {
    let digests = [&found.digest, &found.manifest, &found.config];
    digests.iter().any(|digest| digest.as_ref() == image.id)
}

/// The engine's image of the reference, whether or not the registry still has it; otherwise the failed attempts. A base
/// pulled earlier replaces an unreachable registry, but not one that has no such image.
async fn in_engine(
    engine: &Engine,
    request: &Request<'_>,
    platform: Platform,
    failure: &LookupFailure,
) -> Result<Result<BasePlan, Option<Attempt>>, BaseError> {
    let reference = request.reference();
    let planned = |tag: String, digest: String, image: EngineImage| BasePlan {
        platform,
        origin: Origin::Engine,
        name: reference.to_string(),
        engine_tag: tag,
        digest: Some(digest),
        engine_image: Some(image.id),
        not_from_registry: None,
    };
    let own = engine.inspect_image_for(reference, platform).await?;
    if let Some(image) = &own
        && let Some(digest) = repository_digest(image, reference)
    {
        let tag = kept::tag(Source::Reference(reference), platform, &digest)?;
        return Ok(Ok(planned(tag, digest, image.clone())));
    }
    if !failure.answered
        && let Some(kept) = kept::newest(engine, Source::Reference(reference), platform).await?
    {
        return Ok(Ok(planned(kept.tag, kept.digest, kept.image)));
    }
    Ok(Err(own.map(|_| Attempt {
        source: format!("the engine, for {reference}"),
        reason: "it has this image without a digest, because the image was not pulled from a registry; \
                 push it to a reachable registry and use that reference"
            .into(),
    })))
}

/// The image's digest in the reference's repository.
fn repository_digest(image: &EngineImage, reference: &str) -> Option<String> {
    let wanted = ImageReference::familiar(reference).ok()?;
    if let Some(digest) = wanted.digest {
        return Some(digest.to_string());
    }
    let digests = image.repo_digests.iter();
    let mut digests = digests.filter_map(|text| ImageReference::familiar(text).ok());
    let of_repository = digests.find(|known| known.repository == wanted.repository)?;
    of_repository.digest.map(|digest| digest.to_string())
}

/// A base from the distro's archive: in the engine, or to be built.
async fn archived(engine: &Engine, request: &Request<'_>, platform: Platform) -> Result<BasePlan, BaseError> {
    let planned = request.bootstrapped(platform);
    let kept = kept::newest(engine, Source::Archive(request.distro), platform).await?;
    Ok(match kept {
        None => planned,
        Some(kept) => BasePlan {
            origin: Origin::Engine,
            engine_tag: kept.tag,
            digest: Some(kept.digest),
            engine_image: Some(kept.image.id),
            ..planned
        },
    })
}

/// Puts a planned base into the engine, or in reach of the buildkitd, and returns it. With `--bootstrap auto`, the
/// archive replaces a failed pull; if that fails too, the error contains both reasons.
pub async fn provide(
    daemon: &Daemon,
    request: &Request<'_>,
    plan: &BasePlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let platform = plan.platform;
    let archive = || {
        let mirror = super::mirror(request.distro, platform.architecture());
        format!("the archive {mirror}")
    };
    match (plan.origin, daemon.engine()) {
        (Origin::Engine, Some(engine)) => keep(engine, request, plan).await,
        (Origin::Engine, None) | (Origin::Bootstrap, _) => match make(daemon, request, plan, progress, cancel).await {
            Err(error @ BaseError::Unreachable { .. }) => {
                let registry = plan.not_from_registry.clone().map(|reason| request.attempt(reason));
                let tried = registry.into_iter().chain([Attempt::new(archive(), &error)]);
                Err(request.no_base(platform, tried.collect()))
            }
            done => done,
        },
        (Origin::Registry, _) => {
            let error = match pull(daemon, request, plan, progress, cancel).await {
                Err(error) if !matches!(error, BaseError::Cancelled) => error,
                done => return done,
            };
            let registry = request.attempt(error.to_string());
            if !request.may_bootstrap() {
                return Err(request.no_base(platform, vec![registry]));
            }
            progress.note(&format!(
                "{} cannot be pulled; building the base from the archive",
                request.reference()
            ));
            match make(daemon, request, &request.bootstrapped(platform), progress, cancel).await {
                Err(error) if !matches!(error, BaseError::Cancelled) => {
                    Err(request.no_base(platform, vec![registry, Attempt::new(archive(), &error)]))
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
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseImage, BaseError> {
    let pulling = async {
        let found = request.lookup.image(request.reference(), plan.platform).await;
        let failed = |failure: LookupFailure| BaseError::Lookup(failure.reason);
        let Some(engine) = daemon.engine() else {
            return Ok(offer::from_registry(plan, found.map_err(failed)?));
        };
        // By the platform's own manifest: in a classic store, an index digest belongs to one platform at a time.
        let (reference, digest) = match (found, &plan.digest) {
            (Ok(found), _) => {
                let reference = format!("{}@{}", found.repository, found.manifest);
                (reference, found.digest.to_string())
            }
            // Only the engine can reach this registry.
            (Err(failure), Some(digest)) => match ImageReference::familiar(request.reference()) {
                Ok(name) => (format!("{}@{digest}", name.repository), digest.clone()),
                Err(_) => return Err(failed(failure)),
            },
            (Err(failure), None) => return Err(failed(failure)),
        };
        let image = engine
            .pull(&reference, plan.platform, &plan.engine_tag, progress)
            .await?;
        Ok(BaseImage {
            from: plan.engine_tag.clone(),
            name: plan.name.clone(),
            digest,
            diff_ids: image.diff_ids,
            archive: None,
        })
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
            let planned = BasePlan {
                engine_tag: load(engine, request.distro, &archive, progress).await?,
                digest: Some(archive.digest.clone()),
                ..plan.clone()
            };
            keep(engine, request, &planned).await
        }
        Daemon::Buildkitd(_) => offer::from_archive(plan, &archive),
    }
}

/// Loads a bootstrapped base into the engine. Returns its tag.
pub async fn load(
    engine: &Engine,
    distro: &Distro,
    archive: &BaseArchive,
    progress: &dyn Progress,
) -> Result<String, BaseError> {
    progress.step("loading the base into the engine");
    let file = tokio::fs::File::open(&archive.path)
        .await
        .map_err(|e| BaseError::io("opening", &archive.path, e))?;
    engine
        .load(tokio_util::io::ReaderStream::with_capacity(file, 1 << 20))
        .await?;
    let tag = kept::tag(Source::Archive(distro), archive.platform, &archive.digest)?;
    engine.tag(&archive.image_name, &tag).await?;
    Ok(tag)
}

/// Tags an image in the engine as a kept base. The tag is set again at each use, so the newest tag is the most recently
/// used base.
async fn keep(engine: &Engine, request: &Request<'_>, plan: &BasePlan) -> Result<BaseImage, BaseError> {
    let gone = || {
        let source = format!("the engine, for {}", plan.engine_tag);
        let reason = "it no longer exists".into();
        request.no_base(plan.platform, vec![Attempt { source, reason }])
    };
    let from = plan.engine_image.as_ref().unwrap_or(&plan.engine_tag);
    engine.tag(from, &plan.engine_tag).await?;
    let image = engine.inspect_image_for(&plan.engine_tag, plan.platform).await?;
    Ok(BaseImage {
        from: plan.engine_tag.clone(),
        name: plan.name.clone(),
        digest: plan.digest.clone().ok_or_else(gone)?,
        diff_ids: image.ok_or_else(gone)?.diff_ids,
        archive: None,
    })
}
