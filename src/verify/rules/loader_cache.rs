//! Rule about /etc/ld.so.cache: the loader takes a library's path from it before it searches any directory.
//!
//! The format is glibc's `struct cache_file_new` (sysdeps/generic/dl-cache.h): a header of 48 bytes, entries of 24 bytes, and
//! the strings that both offsets of an entry point to, counted from the header.

use super::Rule;
use crate::layout::tree::NodeKind;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const LOADER_CACHE: Rule = Rule {
    id: "loader-cache",
    title: "The loader's cache names only libraries in the distro's directories",
    check: loader_cache,
};

const PATH: &str = "etc/ld.so.cache";
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;

fn loader_cache(context: &Context, evidence: &mut Evidence) {
    let Some(node) = context.tree.get(PATH) else {
        return evidence.checked(0, "libraries (no cache)");
    };
    let bytes = match &node.kind {
        NodeKind::File(file) => file.content.as_deref(),
        _ => None,
    };
    let Some(entries) = bytes.and_then(entries) else {
        return evidence.file(
            PATH,
            node.layer,
            "a cache of glibc's format",
            "nothing that can be read",
        );
    };
    evidence.checked(entries.len(), "libraries");
    for (name, path) in entries {
        // Only these directories are searched without a cache, and packages own every library there.
        let gnu = context.platform.architecture().gnu_name();
        let directories = ["", "usr/"].map(|root| [format!("/{root}lib/{gnu}-linux-gnu/"), format!("/{root}lib/")]);
        let file = directories
            .as_flattened()
            .iter()
            .find_map(|d| path.strip_prefix(d.as_str()));
        let own = file.is_some_and(|file| !file.contains('/') && file == name)
            || file.is_some_and(|file| file.strip_suffix(name).is_some_and(|d| d.starts_with("glibc-hwcaps/")));
        let is_file = |path| {
            let found = context.tree.resolve(path);
            found.is_ok_and(|(_, node)| matches!(node.kind, NodeKind::File(_)))
        };
        if !own {
            evidence.file(
                PATH,
                node.layer,
                format_args!("{name} in a directory of the distro's libraries"),
                path,
            );
        } else if !is_file(path) {
            evidence.file(PATH, node.layer, format_args!("{name} at {path}"), "not a file");
        }
    }
}

/// Name and path of each library.
fn entries(bytes: &[u8]) -> Option<Vec<(&str, &str)>> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let text = |at: usize| {
        let rest = bytes.get(at..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|b| *b == 0)?]).ok()
    };
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let count = word(MAGIC.len())?;
    let entry = |i: usize| {
        let at = i.checked_mul(ENTRY)?.checked_add(HEADER)?;
        Some((text(word(at + 4)?)?, text(word(at + 8)?)?))
    };
    // An entry takes bytes, so the file bounds the count.
    (count <= bytes.len() / ENTRY).then(|| (0..count).map(entry).collect())?
}
