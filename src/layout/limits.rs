//! Resource limits for an image. Archives from engines and registries are not trusted.

/// Limits of one export or image. Memory use grows with `entries` and `path_bytes`, disk use with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of one layer.
    pub layer_bytes: u64,
    /// Uncompressed bytes of all layers together; also the maximum length of an export.
    pub image_bytes: u64,
    /// Members of all layers.
    pub entries: u64,
    /// Bytes of all paths, link targets and extended attributes of all layers.
    pub path_bytes: u64,
    /// One PAX header or GNU long name.
    pub extension_bytes: u64,
    /// One JSON document: manifest, index, configuration.
    pub json_bytes: u64,
    /// Size of a file whose content is kept in the tree; larger files are not kept.
    pub kept_file_bytes: u64,
    /// Bytes of all kept contents of one image; later ones are not kept.
    pub kept_total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 16 << 30,
            image_bytes: 32 << 30,
            entries: 400_000,
            path_bytes: 64 << 20,
            extension_bytes: 1 << 20,
            json_bytes: 4 << 20,
            kept_file_bytes: 8 << 20,
            kept_total_bytes: 32 << 20,
        }
    }
}

impl Limits {
    /// The limits that remain after a layer.
    pub(super) fn after(mut self, uncompressed_size: u64, entries: u64, path_bytes: u64) -> Self {
        self.image_bytes = self.image_bytes.saturating_sub(uncompressed_size);
        self.layer_bytes = self.layer_bytes.min(self.image_bytes);
        self.entries = self.entries.saturating_sub(entries);
        self.path_bytes = self.path_bytes.saturating_sub(path_bytes);
        self
    }
}
