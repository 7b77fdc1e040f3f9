//! The list of the files that the build itself copies into the image: all of them that no Python RECORD has.
//!
//! Written by the Dockerfile's assembly stage, in the format of sha256sum(1): `HEXADECIMAL  ./PATH`.

use std::collections::BTreeMap;

use crate::layout::tree::Tree;

pub const LIST: &str = "usr/local/share/obgp-build/SHA256SUMS";

/// Far more than a build copies.
const MAX_FILES: usize = 100_000;

/// SHA-256 by path in the tree. An error says what is wrong with the list.
pub fn read(tree: &Tree) -> Result<BTreeMap<String, [u8; 32]>, String> {
    let bytes = tree.content(LIST).ok_or("missing, or too large to be kept")?;
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let mut files = BTreeMap::new();
    for (at, line) in text.lines().enumerate().take(MAX_FILES) {
        let (path, sha256) = parse(line).ok_or_else(|| format!("line {}: not `SHA-256  ./PATH`", at + 1))?;
        files.insert(path.to_string(), sha256);
    }
    Ok(files)
}

fn parse(line: &str) -> Option<(&str, [u8; 32])> {
    let (hexadecimal, path) = line.split_once("  ./")?;
    let mut sha256 = [0; 32];
    hex::decode_to_slice(hexadecimal, &mut sha256).ok()?;
    Some((path, sha256))
}
