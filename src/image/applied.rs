//! What an image says about the patches that its agent has: `PATCHES` and `patches/` in the distribution's dist-info directory,
//! as `build/apply-patches` writes them.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::layout::tree::Tree;

/// The record's file name.
pub const RECORD: &str = "PATCHES";
/// The directory of the patches themselves, next to the record.
pub const DIRECTORY: &str = "patches";

/// How the directory's path ends.
pub const IN_DIST_INFO: &str = ".dist-info/patches";

/// The record of the patches that a distribution has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// In the order in which they were applied.
    pub patches: Vec<AppliedPatch>,
    /// Each patched file, relative to the site directory, and its SHA-256 in hexadecimal.
    pub files: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedPatch {
    pub name: String,
    /// Of the patch, in hexadecimal.
    pub sha256: String,
    pub files: Vec<String>,
}

impl Applied {
    /// The record in a `.dist-info` directory. `Ok(None)` if there is none, an error if it cannot be read.
    pub fn read(tree: &Tree, metadata: &str) -> Result<Option<Self>, String> {
        let path = format!("{metadata}/{RECORD}");
        if tree.get(&path).is_none() {
            return Ok(None);
        }
        let bytes = tree.content(&path).ok_or("not a file, or too large")?;
        serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

/// Where the patch `name` is in a `.dist-info` directory.
pub fn path(metadata: &str, name: &str) -> String {
    format!("{metadata}/{DIRECTORY}/{name}.patch")
}

/// The text of the patch `name` in a `.dist-info` directory, and its SHA-256.
pub fn text(tree: &Tree, metadata: &str, name: &str) -> Option<(String, String)> {
    let bytes = tree.content(&path(metadata, name))?;
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    Some((text, hex::encode(Sha256::digest(bytes))))
}
