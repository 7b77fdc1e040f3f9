//! Bases in the engine's store, each under a tag with reference, platform and digest:
//! `obgp-build/base:ARCH-HASH(NAME)-DIGEST`.
//!
//! The tag contains the digest, because a classic store drops a repository's digests with its last tag, and has none
//! for an image from `docker load`. A tag has one platform, as the classic store requires.

use sha2::{Digest as _, Sha256};

use super::BaseError;
use crate::config::Distro;
use crate::engine::{Engine, EngineError, EngineImage};
use crate::oci::Platform;

const REPOSITORY: &str = "obgp-build/base";

/// The name of a base without its digest: a reference in a registry, or a distro's archive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Reference(&'a str),
    /// Two mirrors of a suite are two sources.
    Archive(&'a Distro),
}

impl Source<'_> {
    /// The tag's part before the digest.
    pub(super) fn prefix(self, platform: Platform) -> String {
        let architecture = platform.architecture();
        let name = match self {
            Self::Reference(reference) => reference.to_string(),
            Self::Archive(distro) => {
                let mirror = super::mirror(distro, architecture);
                format!("{} {mirror}", super::bootstrap::name(distro))
            }
        };
        let hash = hex::encode(Sha256::digest(name));
        format!("{REPOSITORY}:{}-{}-", architecture.name(), &hash[..12])
    }
}

/// The tag of the base with this digest.
pub(super) fn tag(source: Source<'_>, platform: Platform, digest: &str) -> Result<String, BaseError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) => Ok(source.prefix(platform) + hex),
        None => Err(BaseError::Digest {
            digest: digest.to_string(),
        }),
    }
}

/// A base kept in the engine.
pub(super) struct Kept {
    pub tag: String,
    /// `sha256:…`
    pub digest: String,
    pub image: EngineImage,
}

/// The most recently used base of this source, with any digest.
pub(super) async fn newest(
    engine: &Engine,
    source: Source<'_>,
    platform: Platform,
) -> Result<Option<Kept>, EngineError> {
    let prefix = source.prefix(platform);
    let mut newest: Option<Kept> = None;
    for tag in engine.tags_like(&format!("{prefix}*")).await? {
        let Some(hex) = tag.strip_prefix(&prefix) else { continue };
        let Some(image) = engine.inspect_image_for(&tag, platform).await? else {
            continue;
        };
        if newest.as_ref().is_none_or(|kept| kept.image.tagged < image.tagged) {
            newest = Some(Kept {
                digest: format!("sha256:{hex}"),
                tag,
                image,
            });
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_kept_by_reference_platform_and_digest() {
        let (amd64, arm64) = ("amd64".parse().unwrap(), "arm64".parse().unwrap());
        let digest = format!("sha256:{}", "a".repeat(64));
        let tag = |reference, platform, digest: &str| super::tag(Source::Reference(reference), platform, digest);
        let one = tag("reg:5000/a:1", amd64, &digest).unwrap();
        assert!(
            one.starts_with("obgp-build/base:amd64-") && one.ends_with(&"a".repeat(64)),
            "{one}"
        );
        assert!(one.rsplit(':').next().unwrap().len() <= 128, "{one}");
        let other = format!("sha256:{}", "b".repeat(64));
        for different in [
            tag("reg:5000/a:2", amd64, &digest),
            tag("reg:5000/a:1", arm64, &digest),
            tag("reg:5000/a:1", amd64, &other),
        ] {
            assert_ne!(one, different.unwrap());
        }
        assert!(tag("reg:5000/a:1", amd64, "sha512:00").is_err());
    }
}
