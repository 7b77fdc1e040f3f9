//! Bases for a buildkitd, which has no image store: it pulls registry bases by digest, and reads bootstrapped bases in
//! the session.

use std::sync::Arc;

use oci_spec::image::Digest;

use super::BaseError;
use super::cache::BaseArchive;
use super::lookup::RegistryImage;
use super::resolve::{BaseImage, BasePlan, Origin, Request};
use crate::buildkit::ImageArchive;
use crate::oci::Platform;

/// Like the planning for an engine, but without a store: if a registry is unreachable, the archive is used.
pub(super) async fn plan(request: &Request<'_>, platform: Platform) -> Result<BasePlan, BaseError> {
    if request.bootstraps_only() {
        return Ok(request.bootstrapped(platform));
    }
    let reference = request.reference();
    match request.lookup.image(reference, platform).await {
        Ok(found) => Ok(BasePlan {
            platform,
            origin: Origin::Registry,
            name: reference.to_string(),
            engine_tag: pinned(&found),
            digest: Some(found.digest.to_string()),
            engine_image: None,
            not_from_registry: None,
        }),
        Err(failure) if failure.answered || !request.may_bootstrap() => {
            Err(request.no_base(platform, vec![request.failed_lookup(&failure)]))
        }
        Err(failure) => Ok(BasePlan {
            not_from_registry: Some(failure.reason),
            ..request.bootstrapped(platform)
        }),
    }
}

/// The reference in `FROM`: exactly the image that was looked up.
fn pinned(found: &RegistryImage) -> String {
    format!("{}@{}", found.repository, found.digest)
}

/// A base in the registry, which the buildkitd pulls.
pub(super) fn from_registry(plan: &BasePlan, found: RegistryImage) -> BaseImage {
    BaseImage {
        from: pinned(&found),
        name: plan.name.clone(),
        digest: found.digest.to_string(),
        diff_ids: found.diff_ids,
        archive: None,
    }
}

/// A bootstrapped base, under the name that it would have in an engine.
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
        digest: base.digest.clone(),
        diff_ids: vec![base.diff_id.clone()],
        archive: Some(Arc::new(archive)),
    })
}
