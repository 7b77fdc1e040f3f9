//! A manifest -> its signatures, attestations and SBOMs, which refer to it and which it does not name.
//!
//! Two schemes are in use. cosign 2 stores them under tags derived from the digest (`sha256-….sig`, `.att`, `.sbom`). In OCI 1.1 they
//! name their subject, and the registry lists them as referrers; for a registry without that API, clients maintain an index
//! with the tag `sha256-…` (distribution specification, "Referrers Tag Schema").

use super::copy::{Copied, Copier, Route};
use super::error::SyncError;
use super::manifest::{self, Descriptor, Needs};
use super::reference::Image;
use super::registry::Manifest;

const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// Copies an image, then the companions of each of its manifests.
pub fn copy_with_companions(copier: &mut Copier, source: &Image, destination: &Image) -> Result<Copied, SyncError> {
    let mut route = copier.copy(source, destination)?;
    for subject in std::mem::take(&mut route.subjects) {
        copy_companions(copier, &mut route, &subject)?;
    }
    Ok(route.copied)
}

fn copy_companions(copier: &mut Copier, route: &mut Route, subject: &str) -> Result<(), SyncError> {
    let tag = subject.replace(':', "-");
    for suffix in SUFFIXES {
        let tag = format!("{tag}.{suffix}");
        if let Some(found) = route.from.manifest(&route.source, &tag)? {
            // Depth 1: it is not part of the image and has no signatures itself.
            copier.tree(route, &found, Some(&tag), 1)?;
            route.copied.companions += 1;
        }
    }
    referrers(copier, route, subject, &tag)
}

fn referrers(copier: &mut Copier, route: &mut Route, subject: &str, tag: &str) -> Result<(), SyncError> {
    let listed = match route.from.referrers(&route.source, subject)? {
        Some(index) => Some(index),
        None => route.from.manifest(&route.source, tag)?,
    };
    let listed = descriptors(listed.as_ref());
    let mut listed_by_registry = true;
    for referrer in &listed {
        if let Some(manifest) = route.from.manifest(&route.source, &referrer.digest)? {
            let subjects = route.subjects.len();
            listed_by_registry &= copier.tree(route, &manifest, None, 1)?;
            route.subjects.truncate(subjects);
            route.copied.companions += 1;
        }
    }
    if listed.is_empty() || route.to.referrers(&route.destination, subject)?.is_some() && listed_by_registry {
        return Ok(());
    }
    let there = route.to.manifest(&route.destination, tag)?;
    let before = descriptors(there.as_ref());
    let mut all = before.clone();
    all.extend(
        listed
            .into_iter()
            .filter(|new| !before.iter().any(|old| old.digest == new.digest)),
    );
    if all.len() == before.len() {
        return Ok(());
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": all});
    let bytes = index.to_string().into_bytes();
    let index = Manifest {
        digest: manifest::digest(&bytes, None),
        media_type: manifest::INDEX.to_string(),
        bytes,
    };
    route.copied.manifests += 1;
    route.to.put_manifest(&route.destination, tag, &index).map(|_| ())
}

/// The descriptors of an index. Empty if there is none, or if the tag belongs to something else.
fn descriptors(index: Option<&Manifest>) -> Vec<Descriptor> {
    match index.map(|index| manifest::needs(&index.bytes)) {
        Some(Ok(Needs::Manifests(descriptors))) => descriptors,
        _ => Vec::new(),
    }
}
