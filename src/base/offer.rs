//! Bases for a buildkitd, which has no image store: what a registry serves it pulls itself, by digest; what was made from
//! the distro's archive it reads out of the session.

use std::sync::Arc;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};

use super::cache::{self, BaseArchive};
use super::resolve::{BaseImage, BasePlan, Origin, Request};
use super::{BaseError, bootstrap};
use crate::buildkit::ImageArchive;
use crate::cli::BootstrapMode;
use crate::layout;
use crate::platform::Platform;
use crate::registry::{Access, ImageReference, Registries, RegistryError};

/// As for an engine, with this machine's cache in place of the engine's store.
pub(super) fn plan(request: &Request<'_>, platform: Platform) -> BasePlan {
    let directory = cache::directory(request.cache, request.distro_name, platform);
    let bootstrapped = match request.mode {
        _ if request.base.is_some() => false,
        BootstrapMode::Always => true,
        BootstrapMode::Never => false,
        BootstrapMode::Auto => cache::newest(&directory).is_some(),
    };
    let (origin, name, engine_tag) = match bootstrapped {
        true => (
            Origin::Bootstrap,
            bootstrap::name(request.distro),
            bootstrap::engine_tag(request.distro_name, platform),
        ),
        false => {
            let reference = request.reference().to_string();
            (Origin::Registry, reference.clone(), reference)
        }
    };
    BasePlan {
        platform,
        origin,
        name,
        engine_tag,
        engine_image: None,
    }
}

/// What the registry has now, for the buildkitd to pull exactly that.
pub(super) async fn from_registry(
    request: &Request<'_>,
    plan: &BasePlan,
    registries: &Registries,
) -> Result<BaseImage, BaseError> {
    let text = request.reference();
    let bad = |reason: String| RegistryError::Name {
        text: text.to_string(),
        reason,
    };
    let reference = ImageReference::familiar(text).map_err(bad)?;
    let repository = registries.repository(&reference.repository, Access::Pull)?;
    let target = reference.target().unwrap_or_else(|| "latest".into());
    let root = repository.manifest(&target).await?;
    let manifest = match layout::is_index(root.descriptor.media_type()) {
        false => root.clone(),
        true => {
            let index: ImageIndex = repository.parse(&root.descriptor, &root.bytes)?;
            let fits = |child: &&Descriptor| {
                let platform = child.platform().as_ref();
                platform.and_then(|p| layout::known_platform(p.os(), p.architecture())) == Some(plan.platform)
            };
            let child = index.manifests().iter().find(fits);
            let child =
                child.ok_or_else(|| bad(format!("the registry has no image of this name for {}", plan.platform)))?;
            repository.manifest(child.digest().as_ref()).await?
        }
    };
    let manifest: ImageManifest = repository.parse(&manifest.descriptor, &manifest.bytes)?;
    let config = repository.blob(manifest.config()).await?;
    let config: ImageConfiguration = repository.parse(manifest.config(), &config)?;
    let (os, architecture) = (config.os(), config.architecture());
    if layout::known_platform(os, architecture) != Some(plan.platform) {
        return Err(bad(format!("it is for {os}/{architecture}, not for {}", plan.platform)).into());
    }
    let digest = root.descriptor.digest().to_string();
    Ok(BaseImage {
        from: format!("{}@{digest}", reference.repository),
        name: plan.name.clone(),
        digest: Some(digest),
        diff_ids: config.rootfs().diff_ids().clone(),
        archive: None,
    })
}

/// A bootstrapped base, under the name that an engine would have it by.
pub(super) fn from_archive(plan: &BasePlan, base: &BaseArchive) -> Result<BaseImage, BaseError> {
    let opened = base
        .digest
        .parse::<Digest>()
        .map_err(std::io::Error::other)
        .and_then(|manifest| ImageArchive::open(&base.path, &manifest));
    let archive = opened.map_err(|e| BaseError::io("reading the base", &base.path, e))?;
    Ok(BaseImage {
        from: plan.engine_tag.clone(),
        name: plan.name.clone(),
        digest: Some(base.digest.clone()),
        diff_ids: vec![base.diff_id.clone()],
        archive: Some(Arc::new(archive)),
    })
}
