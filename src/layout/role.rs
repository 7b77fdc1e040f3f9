//! An entry of an index and its documents -> what the manifest is: an image of a supported platform, or something else that
//! must be named where images are judged.
//!
//! An entry may have no platform (image-spec, image-index.md: optional) or, as BuildKit's attestations, `unknown/unknown`; then
//! the manifest and the configuration decide.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, MediaType};
use serde::Serialize;

use super::read::{is_index, is_manifest, known_platform};
use crate::oci::Platform;

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Image(Platform),
    /// Every layer is an in-toto statement: no runtime can start it.
    Attestation,
    /// Described for a message: `linux/riscv64`, `an artifact of the type …`.
    Other(String),
}

/// A manifest of an image that is not one of a supported platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherManifest {
    pub digest: String,
    pub what: String,
    /// Whether nothing has to judge it: an attestation, or a platform that the caller did not choose.
    pub left_out: bool,
}

impl Role {
    /// `None` if the manifest decides.
    pub fn by_entry(entry: &Descriptor) -> Option<Self> {
        let media_type = entry.media_type();
        if is_index(media_type) {
            return Some(Self::Other("an index within the index".to_string()));
        }
        if !is_manifest(media_type) {
            return Some(Self::Other(format!("a document of the type {media_type}")));
        }
        let platform = entry.platform().as_ref().filter(|p| p.os().to_string() != "unknown")?;
        let name = format!("{}/{}", platform.os(), platform.architecture());
        Some(known_platform(platform.os(), platform.architecture()).map_or(Self::Other(name), Self::Image))
    }

    /// The descriptor of the configuration if that decides.
    pub fn by_manifest(manifest: &[u8]) -> Result<Descriptor, Self> {
        let manifest: ImageManifest =
            serde_json::from_slice(manifest).map_err(|_| Self::Other("a manifest that cannot be read".to_string()))?;
        let mut layers = manifest
            .layers()
            .iter()
            .map(|layer| layer.media_type().as_ref())
            .peekable();
        if layers.peek().is_some() && layers.all(|layer| layer == IN_TOTO) {
            return Err(Self::Attestation);
        }
        let config = manifest.config();
        match config.media_type() {
            MediaType::ImageConfig => Ok(config.clone()),
            other if other.as_ref() == DOCKER_CONFIG => Ok(config.clone()),
            other => Err(Self::Other(format!("an artifact of the type {other}"))),
        }
    }

    pub fn by_config(config: &[u8]) -> Self {
        match serde_json::from_slice::<ImageConfiguration>(config) {
            Ok(config) => {
                let name = format!("{}/{}", config.os(), config.architecture());
                known_platform(config.os(), config.architecture()).map_or(Self::Other(name), Self::Image)
            }
            Err(_) => Self::Other("an image whose configuration cannot be read".to_string()),
        }
    }
}

impl OtherManifest {
    /// The manifests that are not judged where `chosen` platforms are: `others`, and the images of other platforms. If none
    /// is chosen, all images are judged.
    pub fn all<'a>(
        others: &[Self],
        images: impl Iterator<Item = (Platform, &'a Descriptor)>,
        chosen: &[Platform],
    ) -> Vec<Self> {
        let images = images.filter(|(platform, _)| !chosen.is_empty() && !chosen.contains(platform));
        let images = images.map(|(platform, manifest)| Self {
            digest: manifest.digest().to_string(),
            what: platform.to_string(),
            left_out: true,
        });
        let others = others.iter().cloned().map(|other| Self {
            left_out: other.left_out || !chosen.is_empty(),
            ..other
        });
        others.chain(images).collect()
    }

    /// `None` for an image of a supported platform.
    pub fn new(manifest: &Descriptor, role: &Role) -> Option<Self> {
        let what = match role {
            Role::Image(_) => return None,
            Role::Attestation => "an attestation".to_string(),
            Role::Other(what) => what.clone(),
        };
        Some(Self {
            digest: manifest.digest().to_string(),
            what,
            left_out: *role == Role::Attestation,
        })
    }
}
