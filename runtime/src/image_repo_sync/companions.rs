//! What belongs to a manifest without being named by it: signatures, attestations and SBOMs.
//!
//! Two ways to find them are in use. cosign 2 puts them under tags made of the digest (`sha256-….sig`, `.att`, `.sbom`). OCI 1.1
//! has them name their subject, and the registry lists them; where a registry does not, an index under the tag `sha256-…` does, which
//! its clients keep (distribution specification, "Referrers Tag Schema").

use super::copy::{Copier, Route};
use super::error::SyncError;
use super::manifest::{self, Descriptor, Needs};
use super::registry::Manifest;

const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

pub fn copy(copier: &mut Copier, route: &mut Route, subject: &str) -> Result<(), SyncError> {
    let tag = subject.replace(':', "-");
    for suffix in SUFFIXES {
        let tag = format!("{tag}.{suffix}");
        if let Some(found) = route.from.manifest(&route.source, &tag)? {
            // Not what the image is made of: nothing is signed about it.
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
    let mut kept_by_registry = true;
    for referrer in &listed {
        if let Some(manifest) = route.from.manifest(&route.source, &referrer.digest)? {
            let subjects = route.subjects.len();
            kept_by_registry &= copier.tree(route, &manifest, None, 1)?;
            route.subjects.truncate(subjects);
            route.copied.companions += 1;
        }
    }
    if listed.is_empty() || route.to.referrers(&route.destination, subject)?.is_some() && kept_by_registry {
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

/// Of an index; nothing where there is none, or something else has that tag.
fn descriptors(index: Option<&Manifest>) -> Vec<Descriptor> {
    match index.map(|index| manifest::needs(&index.bytes)) {
        Some(Ok(Needs::Manifests(descriptors))) => descriptors,
        _ => Vec::new(),
    }
}
