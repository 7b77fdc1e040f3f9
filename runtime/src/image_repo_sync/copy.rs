//! Copies an image and everything that its manifests name: blobs first, then manifests, then the index.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

use super::client::{Registries, Registry};
use super::error::SyncError;
use super::manifest::{self, Descriptor, Needs};
use super::reference::Image;
use super::registry::{Manifest, Upload};
use super::retry::retrying;

/// The deepest nesting of indexes.
const MAX_DEPTH: usize = 4;

/// What was copied for one image.
#[derive(Debug, Default, serde::Serialize)]
pub struct Copied {
    pub digest: String,
    /// Manifests written, including the index. 0 if the local registry already had the image.
    pub manifests: usize,
    pub uploaded: usize,
    pub uploaded_bytes: u64,
    /// Blobs that the local registry already had in another repository.
    pub mounted: usize,
    pub present: usize,
    /// Signatures, attestations, SBOMs.
    pub companions: usize,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.manifests {
            0 => f.write_str("present"),
            manifests => write!(
                f,
                "copied {manifests} manifests, {} blobs uploaded ({:.1} MB), {} mounted, {} present, {} companions",
                self.uploaded,
                self.uploaded_bytes as f64 / 1e6,
                self.mounted,
                self.present,
                self.companions
            ),
        }
    }
}

pub struct Copier<'r> {
    registries: &'r Registries,
    /// Repositories that have a blob, by host and digest, as far as this run knows.
    known_blobs: HashMap<(String, String), String>,
}

/// Source, destination and progress of one copy.
pub struct Route {
    pub from: Rc<Registry>,
    pub source: String,
    pub to: Rc<Registry>,
    pub destination: String,
    pub copied: Copied,
    /// Digests of the image's manifests, which may have signatures.
    pub subjects: Vec<String>,
    /// Manifests that are already copied.
    done: HashSet<String>,
}

impl<'r> Copier<'r> {
    pub fn new(registries: &'r Registries) -> Self {
        Self {
            registries,
            known_blobs: HashMap::new(),
        }
    }

    /// Copies an image without its companions.
    pub fn copy(&mut self, source: &Image, destination: &Image) -> Result<Route, SyncError> {
        let mut route = Route {
            from: self.registries.get(&source.host)?,
            source: source.repository.clone(),
            to: self.registries.get(&destination.host)?,
            destination: destination.repository.clone(),
            copied: Copied::default(),
            subjects: Vec::new(),
            done: HashSet::new(),
        };
        let reference = source.reference();
        let manifest = route.from.manifest(&source.repository, reference)?.ok_or_else(|| {
            SyncError::answer(
                &source.host,
                &format!("read {}", source.repository),
                format!("the repository has no {reference}"),
            )
        })?;
        let name = destination.tag.as_deref().unwrap_or(&manifest.digest);
        self.tree(&mut route, &manifest, Some(name), 0)?;
        route.copied.digest = manifest.digest;
        Ok(route)
    }

    /// Copies a manifest and everything it names, under `tag` if given. A registry that has a manifest also has everything it names.
    /// Returns whether the destination maintains the list of referrers.
    pub fn tree(
        &mut self,
        route: &mut Route,
        manifest: &Manifest,
        tag: Option<&str>,
        depth: usize,
    ) -> Result<bool, SyncError> {
        let doing = format!("read {}@{}", route.source, manifest.digest);
        let needs =
            manifest::needs(&manifest.bytes).map_err(|problem| SyncError::answer(&route.from.host, &doing, problem))?;
        if depth == 0 || tag.is_none() {
            route.subjects.push(manifest.digest.clone());
        }
        let reference = tag.unwrap_or(&manifest.digest).to_string();
        let there = route.to.manifest(&route.destination, &reference)?;
        let present = there.is_some_and(|there| there.digest == manifest.digest);
        match needs {
            // Even if the index is present: its manifests may have new signatures.
            Needs::Manifests(children) => self.children(route, &children, depth)?,
            Needs::Blobs(_) if present => {}
            Needs::Blobs(blobs) => {
                for blob in &blobs {
                    self.blob(route, blob)?;
                }
            }
        }
        if present {
            return Ok(true);
        }
        route.copied.manifests += 1;
        route.to.put_manifest(&route.destination, &reference, manifest)
    }

    fn children(&mut self, route: &mut Route, children: &[Descriptor], depth: usize) -> Result<(), SyncError> {
        if depth == MAX_DEPTH {
            let doing = format!("read {}", route.source);
            return Err(SyncError::answer(
                &route.from.host,
                &doing,
                "indexes are nested too deeply",
            ));
        }
        for child in children {
            if !route.done.insert(child.digest.clone()) {
                continue;
            }
            let manifest = route.from.manifest(&route.source, &child.digest)?.ok_or_else(|| {
                let doing = format!("read {}", route.source);
                SyncError::answer(
                    &route.from.host,
                    &doing,
                    format!("the index names {}, which does not exist", child.digest),
                )
            })?;
            self.tree(route, &manifest, None, depth + 1)?;
        }
        Ok(())
    }

    fn blob(&mut self, route: &mut Route, blob: &Descriptor) -> Result<(), SyncError> {
        let key = (route.to.host.clone(), blob.digest.clone());
        if route.to.has_blob(&route.destination, &blob.digest)? {
            route.copied.present += 1;
        } else {
            let same = route.from.host == route.to.host;
            let elsewhere = same
                .then(|| route.source.clone())
                .or_else(|| self.known_blobs.get(&key).cloned());
            match retrying(|| transfer(route, blob, elsewhere.as_deref()))? {
                Transfer::Mounted => route.copied.mounted += 1,
                Transfer::Uploaded => {
                    route.copied.uploaded += 1;
                    route.copied.uploaded_bytes += blob.size;
                }
            }
        }
        self.known_blobs.insert(key, route.destination.clone());
        Ok(())
    }
}

enum Transfer {
    Mounted,
    Uploaded,
}

/// One attempt. An upload cannot be resumed, so each attempt starts a new one.
fn transfer(route: &Route, blob: &Descriptor, elsewhere: Option<&str>) -> Result<Transfer, SyncError> {
    match route.to.start_upload(&route.destination, &blob.digest, elsewhere)? {
        Upload::Mounted => Ok(Transfer::Mounted),
        Upload::At(location) => {
            let mut content = route.from.blob(&route.source, &blob.digest)?;
            route
                .to
                .upload(&route.destination, &location, blob.size, &mut content)?;
            Ok(Transfer::Uploaded)
        }
    }
}
