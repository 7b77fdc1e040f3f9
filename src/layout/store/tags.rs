//! Reads and sets tags in a layout's `index.json`, and removes unreferenced blobs.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use oci_spec::image::{Descriptor, DigestAlgorithm, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;

use super::{Layout, StoreError, failed, read_small_json};
use crate::layout::known_platform;
use crate::oci::Platform;
use crate::progress::Progress;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Layout {
    /// The entries of `index.json`.
    pub fn index(&self) -> Result<ImageIndex, StoreError> {
        read_small_json(&self.root.join("index.json"))
    }

    /// The descriptor of `tag`; without a tag, of the only entry.
    pub fn resolve(&self, tag: Option<&str>) -> Result<Descriptor, StoreError> {
        let index = self.index()?;
        let mut entries = index.manifests().iter();
        match tag {
            Some(tag) => entries
                .find(|d| tag_of(d) == Some(tag))
                .cloned()
                .ok_or_else(|| StoreError::NoSuchTag {
                    path: self.root.clone(),
                    tag: tag.to_string(),
                    known: known_tags(&index),
                }),
            None => match (entries.next(), entries.next()) {
                (Some(only), None) => Ok(only.clone()),
                _ => Err(StoreError::WhichTag {
                    path: self.root.clone(),
                    known: known_tags(&index),
                }),
            },
        }
    }

    /// The platforms that `tag` has; none if there is no such image.
    pub fn platforms(&self, tag: &str) -> Vec<Platform> {
        let index = self
            .resolve(Some(tag))
            .and_then(|root| self.read_json::<ImageIndex>(&root));
        let manifests = index.iter().flat_map(|index| index.manifests());
        let platforms = manifests.filter_map(|manifest| manifest.platform().as_ref());
        platforms
            .filter_map(|p| known_platform(p.os(), p.architecture()))
            .collect()
    }

    /// Warns if the tag has platforms that are not among the `new` ones: it will no longer have them.
    pub fn warn_of_lost_platforms(&self, tag: &str, new: &[Platform], progress: &dyn Progress) {
        let names = |platforms: &[Platform]| platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
        let mut lost = self.platforms(tag);
        lost.retain(|platform| !new.contains(platform));
        if !lost.is_empty() {
            progress.note(&format!(
                "warning: {tag} in {} has {}, which this run does not make: the tag will have {} only. To keep both, build \
                 both, or use another --tag or --output",
                self.root.display(),
                names(&lost),
                names(new)
            ));
        }
    }

    /// Points `tag` to `descriptor`, whose blobs must exist, then removes the blobs that only the tag's old descriptor
    /// needed. Entries of other tags and of other programs are unchanged.
    pub fn set_tag(&self, tag: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let _one_at_a_time = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        // The blobs' names must be on disk before a tag refers to them.
        sync_dir(&self.root.join("blobs/sha256"))?;
        let path = self.root.join("index.json");
        // Edited as JSON, so that unknown fields are kept.
        let mut index: Value = read_small_json(&path)?;
        let new = descriptor_json(descriptor, tag).map_err(failed("writing", &path))?;
        let not_an_index = || StoreError::NotALayout {
            path: self.root.clone(),
            reason: "index.json has no list of manifests".into(),
        };
        let manifests = index["manifests"].as_array_mut().ok_or_else(not_an_index)?;
        let mut replaced = Vec::new();
        manifests.retain(|entry| {
            let keep = entry["annotations"][REF_NAME].as_str() != Some(tag);
            if !keep {
                replaced.push(entry.clone());
            }
            keep
        });
        manifests.push(new);
        self.replace("index.json", &index)?;
        for old in replaced {
            // Failed cleanup is not an error: the tag is set.
            if let Ok(old) = serde_json::from_value::<Descriptor>(old)
                && let Err(e) = self.collect(&old)
            {
                tracing::warn!(layout = %self.root.display(), error = %e, "old blobs were not removed");
            }
        }
        Ok(())
    }

    /// Removes the blobs reachable from `old` that neither the index nor work in progress needs.
    fn collect(&self, old: &Descriptor) -> Result<(), StoreError> {
        let mut gone = BTreeSet::new();
        // The old image is damaged: its blobs are unknown and kept.
        if self.reachable(old, &mut gone, 0).is_err() {
            return Ok(());
        }
        let mut kept = BTreeSet::new();
        for entry in self.index()?.manifests() {
            self.reachable(entry, &mut kept, 0)?;
        }
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in gone.iter().filter(|d| !kept.contains(*d) && !used.contains(*d)) {
            let path = self.root.join("blobs/sha256").join(digest);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("removing the old blob", &path)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn reachable(&self, descriptor: &Descriptor, found: &mut BTreeSet<String>, depth: usize) -> Result<(), StoreError> {
        if *descriptor.digest().algorithm() != DigestAlgorithm::Sha256 {
            return Ok(());
        }
        if !found.insert(descriptor.digest().digest().to_string()) || depth > 8 || !self.has(descriptor) {
            return Ok(());
        }
        match descriptor.media_type() {
            MediaType::ImageIndex => {
                let index: ImageIndex = self.read_json(descriptor)?;
                for child in index.manifests() {
                    self.reachable(child, found, depth + 1)?;
                }
            }
            MediaType::ImageManifest => {
                let manifest: ImageManifest = self.read_json(descriptor)?;
                for child in manifest.layers().iter().chain([manifest.config()]) {
                    found.insert(child.digest().digest().to_string());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The tags of the layout in a directory, without its lock; none if they cannot be read.
pub fn tags_in(directory: &Path) -> Vec<String> {
    let index: Option<ImageIndex> = read_small_json(&directory.join("index.json")).ok();
    let entries = index.iter().flat_map(|index| index.manifests());
    entries.filter_map(tag_of).map(str::to_string).collect()
}

fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations: Option<&HashMap<String, String>> = descriptor.annotations().as_ref();
    annotations?.get(REF_NAME).map(String::as_str)
}

fn known_tags(index: &ImageIndex) -> String {
    let tags: Vec<&str> = index.manifests().iter().filter_map(tag_of).collect();
    match (tags.is_empty(), index.manifests().len()) {
        (_, 0) => "no image".into(),
        (true, n) => format!("{n} images without a tag"),
        _ => tags.join(", "),
    }
}

fn descriptor_json(descriptor: &Descriptor, tag: &str) -> io::Result<Value> {
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    annotations.insert(REF_NAME.into(), tag.into());
    let mut value = serde_json::to_value(descriptor)?;
    value["annotations"] = serde_json::to_value(annotations)?;
    Ok(value)
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let dir = File::open(path).map_err(failed("opening", path))?;
    dir.sync_all().map_err(failed("syncing", path))
}
