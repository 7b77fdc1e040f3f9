//! Finds what belongs to an image in its repository: cosign's tags, and referrers of any kind with all their parts.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use oci_spec::image::{Descriptor, Digest};
use serde::Deserialize;

use super::{PublishError, RECORD_TYPE, parse};
use crate::layout;
use crate::oci::{Content, Place};
use crate::registry::{RegistryError, RemoteImage, Repository, fallback_tag};

/// Suffixes of cosign 2's tags for an image.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];
/// A signature of an attestation of an image; deeper nesting does not occur.
const DEPTH: usize = 3;
/// Upper limit of the manifests of one artifact.
const PARTS: usize = 1000;
/// Manifests of artifacts before image-spec 1.1 allowed the image manifest for them.
const ARTIFACTS: [&str; 2] = [
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.cncf.oras.artifact.manifest.v1+json",
];

/// The artifacts of an image.
#[derive(Default)]
pub(super) struct Beside {
    /// Parts come before the artifact that names them.
    pub artifacts: Vec<(Content, Place)>,
    pub blobs: Vec<Descriptor>,
    /// Artifacts that cannot be copied, with the reasons.
    pub left: Vec<String>,
    known: HashSet<Digest>,
}

/// The parts of a manifest, an index or an artifact manifest.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

/// Finds the artifacts from the image's digests.
pub(super) async fn beside(image: &RemoteImage) -> Result<Beside, PublishError> {
    let repository = &image.repository;
    let mut found = Beside::default();
    let mut digests: Vec<Digest> = image.manifests().iter().map(|d| d.digest().clone()).collect();
    let tags = digests
        .iter()
        .flat_map(|digest| SUFFIXES.map(|suffix| format!("{}.{suffix}", fallback_tag(digest))));
    let tagged = tags.map(|tag| async move { Ok::<_, RegistryError>((repository.find_tag(&tag).await?, tag)) });
    for (content, tag) in try_join_all(tagged.collect::<Vec<_>>()).await? {
        if let Some(content) = content {
            found.add(repository, content, Place::Tag(tag)).await?;
        }
    }
    for depth in 0..=DEPTH {
        let listed = try_join_all(digests.iter().map(|digest| repository.referrers(digest))).await?;
        digests.clear();
        for referrer in listed.into_iter().flatten().filter(is_portable) {
            if !found.known.insert(referrer.digest().clone()) {
                continue;
            }
            if depth == DEPTH {
                found.leave(&referrer, "it is nested too deeply");
            } else if let Some(content) = found.fetch(repository, &referrer).await? {
                digests.push(referrer.digest().clone());
                found.add(repository, content, Place::Referrer).await?;
            }
        }
    }
    Ok(found)
}

/// The record of a push applies only to its repository.
fn is_portable(referrer: &Descriptor) -> bool {
    let artifact_type = referrer.artifact_type().as_ref();
    artifact_type.is_none_or(|t| t.as_ref() != RECORD_TYPE)
}

impl Beside {
    fn leave(&mut self, artifact: &Descriptor, reason: &str) {
        self.left
            .push(format!("{} ({}): {reason}", artifact.digest(), artifact.media_type()));
    }

    async fn fetch(&mut self, repository: &Repository, artifact: &Descriptor) -> Result<Option<Content>, PublishError> {
        let found = repository.find_manifest(artifact.digest().as_ref()).await?;
        if found.is_none() {
            self.leave(artifact, "the registry lists it and does not have it");
        }
        Ok(found)
    }

    /// Adds an artifact with its parts, or leaves it if a part is unknown.
    async fn add(&mut self, repository: &Repository, artifact: Content, place: Place) -> Result<(), PublishError> {
        let described = artifact.descriptor.clone();
        let mut whole = vec![(artifact, place)];
        let (mut at, mut blobs) = (0, Vec::new());
        // Grows while it is walked: an index names manifests, which may be indexes.
        while let Some((content, _)) = whole.get(at) {
            if !is_known(&content.descriptor) {
                self.leave(
                    &described,
                    &format!("{} is an unknown type", content.descriptor.media_type()),
                );
                return Ok(());
            }
            let parts: Parts = parse(content)?;
            blobs.extend(parts.config.into_iter().chain(parts.layers).chain(parts.blobs));
            for child in parts.manifests {
                let Some(content) = repository.find_manifest(child.digest().as_ref()).await? else {
                    self.leave(
                        &described,
                        &format!("the registry does not have its part {}", child.digest()),
                    );
                    return Ok(());
                };
                if !whole.iter().any(|(part, _)| part.descriptor.digest() == child.digest()) {
                    whole.push((content, Place::Part));
                }
            }
            at += 1;
            if at > PARTS {
                self.leave(&described, "it has too many parts");
                return Ok(());
            }
        }
        self.blobs.extend(blobs);
        self.artifacts.extend(whole.into_iter().rev());
        Ok(())
    }
}

fn is_known(content: &Descriptor) -> bool {
    let media_type = content.media_type();
    layout::is_manifest(media_type) || layout::is_index(media_type) || ARTIFACTS.contains(&media_type.as_ref())
}
