//! The file tree that a runtime would see: layers applied in order, whiteouts and hard links resolved.
//!
//! It contains metadata and the few contents that the contract needs, never whole images. Paths are relative to the
//! root, without a leading slash: `usr/bin/python3`; the root is the empty path.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Maximum number of symbolic links that a look-up follows, as on Linux (`MAXSYMLINKS`).
const MAX_SYMLINKS: usize = 40;

/// Leading bytes kept of every regular file: enough for a shebang, a `.pyc` header, and to detect ELF.
const HEAD_BYTES: usize = 256;

/// Leading bytes kept of an ELF file: includes the program headers in their usual position.
const ELF_HEAD_BYTES: usize = 1024;

/// The kept part of a file that begins with these bytes.
pub fn head(start: &[u8]) -> &[u8] {
    let most = if start.starts_with(b"\x7fELF") {
        ELF_HEAD_BYTES
    } else {
        HEAD_BYTES
    };
    &start[..start.len().min(most)]
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The layer that added it, counted from 0 at the base.
    pub layer: usize,
}

impl Node {
    /// Whether two nodes have the same kind, mode, owner and attributes. Contents of files are not compared.
    pub(super) fn same_but_time(&self, other: &Node) -> bool {
        let same_kind = match (&self.kind, &other.kind) {
            (NodeKind::File(a), NodeKind::File(b)) => a.size == b.size && a.head == b.head,
            (a, b) => a == b,
        };
        same_kind
            && (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
            && self.xattrs == other.xattrs
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    File(File),
    Directory,
    /// Its target as written.
    Symlink(String),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A regular file. Hard links to it share one value's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub size: u64,
    /// The first secret in the content.
    pub secret: Option<Secret>,
    /// The first bytes, see [`head`].
    pub head: Arc<[u8]>,
    /// The whole content, if the reader keeps it.
    pub content: Option<Arc<[u8]>>,
    /// SHA-256 of the content, if the reader computes it.
    pub sha256: Option<[u8; 32]>,
    /// MD5 of the content, if the reader computes it: what dpkg's database has.
    pub md5: Option<[u8; 16]>,
    /// The inode's first path in its layer, if this entry is a hard link.
    pub hard_link_to: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    hidden: Vec<Hidden>,
}

/// A regular file in a layer that the layers above it, or later entries of the same layer, remove or replace. It is not in
/// the tree, but everyone who pulls the image has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    pub path: String,
    /// The layer that has it, counted from 0 at the base.
    pub layer: usize,
    pub secret: Option<Secret>,
}

impl Tree {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node at exactly this path; symbolic links are not followed.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.trim_start_matches('/'))
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(p, n)| (p.as_str(), n))
    }

    /// The files of the layers that the tree does not show.
    pub fn hidden(&self) -> &[Hidden] {
        &self.hidden
    }

    pub fn add_hidden(&mut self, files: impl IntoIterator<Item = Hidden>) {
        self.hidden.extend(files);
    }

    /// All entries below `dir`, at any depth, in path order; without `dir`.
    pub fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let dir = dir.trim_matches('/');
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        self.nodes
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while({
                let prefix = prefix.clone();
                move |(p, _)| p.starts_with(&prefix)
            })
            .filter(|(p, _)| !p.is_empty())
            .map(|(p, n)| (p.as_str(), n))
    }

    /// Names and nodes directly in `dir`, in name order.
    pub fn children<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let dir = dir.trim_matches('/');
        let skip = if dir.is_empty() { 0 } else { dir.len() + 1 };
        self.below(dir)
            .map(move |(p, n)| (&p[skip..], n))
            .filter(|(name, _)| !name.contains('/'))
    }

    /// Resolves `path`, following symbolic links inside the image's root like a process with that root. `..` above the
    /// root stays at the root.
    pub fn resolve(&self, path: &str) -> Result<(String, &Node), Unresolved> {
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_string).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let here = at.join("/");
            let Some(node) = self.nodes.get(&here) else {
                return Err(Unresolved::Missing(here));
            };
            if let NodeKind::Symlink(target) = &node.kind {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Unresolved::Loop(here));
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                pending.extend(target.split('/').rev().map(str::to_string));
            }
        }
        let path = at.join("/");
        match self.nodes.get(&path) {
            Some(node) => Ok((path, node)),
            None => Err(Unresolved::Missing(path)),
        }
    }

    /// The content of the regular file that `path` resolves to, if it was kept.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match &self.resolve(path).ok()?.1.kind {
            NodeKind::File(f) => f.content.as_deref(),
            _ => None,
        }
    }

    /// Inserts a node of a later layer. A non-directory replaces everything below it.
    pub fn insert(&mut self, path: &str, node: Node) {
        let is_dir = matches!(node.kind, NodeKind::Directory);
        if !is_dir {
            self.remove_below(path);
        }
        self.nodes.insert(path.to_string(), node);
    }

    /// Removes a path and everything below it.
    pub fn remove(&mut self, path: &str) {
        self.nodes.remove(path);
        self.remove_below(path);
    }

    /// Removes everything below a directory, but not the directory.
    pub fn remove_below(&mut self, dir: &str) {
        let doomed: Vec<String> = self.below(dir).map(|(p, _)| p.to_string()).collect();
        for path in doomed {
            self.nodes.remove(&path);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("{0:?} does not exist")]
    Missing(String),
    #[error("too many symbolic links at {0:?}")]
    Loop(String),
}
