//! Converts cache entries into the cache options of BuildKit's API.

use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use serde_json::json;

use super::daemon::Daemon;
use crate::config::cache::{CacheEntry, CacheType};
use crate::engine::ImageStore;

impl CacheType {
    /// Whether a builder's BuildKit can write this type. All can read it.
    pub fn can_be_written_by(self, daemon: &Daemon) -> bool {
        match (self, daemon.engine()) {
            // An inline cache must be pushed unmodified, but images from a buildkitd are rewritten.
            (Self::Inline, engine) => engine.is_some(),
            (Self::Registry | Self::Local, None) => true,
            (Self::Registry | Self::Local, Some(engine)) => engine.info().store == ImageStore::Containerd,
        }
    }
}

impl CacheEntry {
    pub(super) fn to_proto(&self) -> CacheOptionsEntry {
        CacheOptionsEntry {
            r#type: self.kind.name().to_string(),
            attrs: self.attrs.clone().into_iter().collect(),
        }
    }
}

/// The frontend attribute as BuildKit's client sets it: its entries in JSON.
pub(super) fn imports_attribute(from: &[CacheEntry]) -> String {
    let entries = from
        .iter()
        .map(|entry| json!({"Type": entry.kind.name(), "Attrs": entry.attrs}));
    serde_json::Value::from_iter(entries).to_string()
}
