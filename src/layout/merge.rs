//! Merges layers in the way of runtimes into a [`Tree`], with the position of every regular file's data.
//!
//! OCI image-spec, layer.md, "Applying Changesets": a layer's whiteouts hide only lower layers, never its own entries,
//! at any position in the archive; later entries replace earlier ones; directories merge.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::layer::{Entry, EntryKind, join};
use super::secret::Secret;
use super::tree::{File, Hidden, Node, NodeKind, Tree, Unresolved};

/// The position of a file's data: the layer in the source image, and the offset in its uncompressed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Data {
    pub source: usize,
    pub offset: u64,
}

/// A regular file of one layer.
#[derive(Clone, Copy, Debug)]
struct Stored {
    data: Data,
    secret: Option<Secret>,
}

impl Stored {
    fn hidden(self, path: String, layer: usize) -> Hidden {
        let secret = self.secret;
        Hidden { path, layer, secret }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("{path:?} cannot be created: its parent {parent:?} is not a directory")]
    NotADirectory { path: String, parent: String },
    #[error("{path:?} is a hard link to {target:?}, which {why}")]
    BadLink {
        path: String,
        target: String,
        why: &'static str,
    },
}

/// The layers applied so far.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Shared with clones until changed.
    pub tree: Arc<Tree>,
    /// By [`Node::layer`], then path. Shared like the tree.
    files: Vec<Arc<HashMap<String, Stored>>>,
    /// Files that a later entry of their own layer replaces.
    replaced: Vec<Hidden>,
}

impl Merged {
    pub fn tree_mut(&mut self) -> &mut Tree {
        Arc::make_mut(&mut self.tree)
    }

    /// The number of applied layers.
    pub fn layers(&self) -> usize {
        self.files.len()
    }

    pub fn data(&self, path: &str) -> Option<Data> {
        let node = self.tree.get(path)?;
        Some(self.files.get(node.layer)?.get(path)?.data)
    }

    /// The tree, with the files that it hides.
    pub fn into_tree(self) -> Tree {
        let mut tree = Arc::unwrap_or_clone(self.tree);
        let mut hidden = self.replaced;
        for (layer, files) in self.files.iter().enumerate() {
            let shown = |path: &str| {
                let node = tree.get(path);
                node.is_some_and(|node| node.layer == layer && matches!(node.kind, NodeKind::File(_)))
            };
            let files = files.iter().filter(|(path, _)| !shown(path));
            hidden.extend(files.map(|(path, file)| file.hidden(path.clone(), layer)));
        }
        hidden.sort_by(|a, b| (a.layer, &a.path).cmp(&(b.layer, &b.path)));
        tree.add_hidden(hidden);
        tree
    }

    /// Applies the next layer; `source` is the number of its stream.
    pub fn apply(&mut self, entries: Vec<Entry>, source: usize) -> Result<(), MergeError> {
        self.files.push(Arc::default());
        self.hide(&entries);
        let mut placing = Placing {
            merged: self,
            source,
            last_parent: None,
        };
        placing.root();
        for entry in entries {
            placing.place(entry)?;
        }
        Ok(())
    }

    /// Whiteout paths are literal: symbolic links in lower layers are not followed, because the layer may replace one
    /// with a directory.
    fn hide(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.kind {
                EntryKind::Whiteout => self.tree_mut().remove(&entry.path),
                EntryKind::Opaque => self.tree_mut().remove_below(&entry.path),
                EntryKind::Node { .. } | EntryKind::HardLink(_) => {}
            }
        }
    }

    /// Restores a node of the lower layers.
    pub(super) fn restore(&mut self, path: &str, node: Node) {
        if let Some(files) = self.files.last_mut() {
            Arc::make_mut(files).remove(path);
        }
        self.tree_mut().insert(path, node);
    }
}

struct Placing<'a> {
    merged: &'a mut Merged,
    source: usize,
    /// The directory of the previous entry, as written and as resolved: most entries share it.
    last_parent: Option<(String, String)>,
}

impl Placing<'_> {
    fn layer(&self) -> usize {
        self.merged.files.len() - 1
    }

    fn root(&mut self) {
        if self.merged.tree.get("").is_none() {
            let root = implied_directory(self.layer());
            self.merged.tree_mut().insert("", root);
        }
    }

    fn place(&mut self, entry: Entry) -> Result<(), MergeError> {
        let layer = self.layer();
        let source = self.source;
        let (path, node, data) = match &entry.kind {
            EntryKind::Whiteout | EntryKind::Opaque => return Ok(()),
            EntryKind::HardLink(target) => {
                let path = self.resolve_parent(&entry.path)?;
                let (node, data) = self.link(&path, target)?;
                (path, node, data)
            }
            EntryKind::Node { kind, offset } => {
                let path = self.resolve_parent(&entry.path)?;
                let data = matches!(kind, NodeKind::File(_)).then_some(Data {
                    source,
                    offset: *offset,
                });
                let Some(mut node) = entry.into_node(layer) else {
                    return Ok(());
                };
                self.keep_origin(&path, &mut node);
                (path, node, data)
            }
        };
        let merged = &mut *self.merged;
        let is_dir = matches!(node.kind, NodeKind::Directory);
        if merged
            .tree
            .get(&path)
            .is_some_and(|old| is_dir != matches!(old.kind, NodeKind::Directory))
        {
            self.last_parent = None;
        }
        let files = Arc::make_mut(&mut merged.files[layer]);
        let replaced = match (data, &node.kind) {
            (Some(data), NodeKind::File(File { secret, .. })) => {
                let secret = *secret;
                files.insert(path.clone(), Stored { data, secret })
            }
            _ => files.remove(&path),
        };
        let replaced = replaced.map(|file| file.hidden(path.clone(), layer));
        merged.replaced.extend(replaced);
        merged.tree_mut().insert(&path, node);
        Ok(())
    }

    /// An existing directory with the same mode and owner keeps its origin: archives repeat the parent directories of
    /// changes.
    fn keep_origin(&self, path: &str, node: &mut Node) {
        if let Some(old) = self.merged.tree.get(path)
            && old.kind == NodeKind::Directory
            && old.same_but_time(node)
        {
            node.layer = old.layer;
        }
    }

    fn link(&mut self, path: &str, target: &str) -> Result<(Node, Option<Data>), MergeError> {
        let bad = |why| MergeError::BadLink {
            path: path.to_string(),
            target: target.to_string(),
            why,
        };
        let (dir, name) = target.rsplit_once('/').unwrap_or(("", target));
        let missing = "does not exist";
        let (dir, _) = self.merged.tree.resolve(dir).map_err(|_| bad(missing))?;
        let target = join(&dir, name);
        let mut node = self.merged.tree.get(&target).ok_or_else(|| bad(missing))?.clone();
        if target == path {
            return Err(bad("is itself"));
        }
        match &mut node.kind {
            NodeKind::Directory => return Err(bad("is a directory")),
            NodeKind::File(file) if file.hard_link_to.is_none() || node.layer != self.layer() => {
                file.hard_link_to = Some(target.clone());
            }
            _ => {}
        }
        node.layer = self.layer();
        Ok((node, self.merged.data(&target)))
    }

    /// Follows the symbolic links above the last component of `path`, and creates missing directories there.
    fn resolve_parent(&mut self, path: &str) -> Result<String, MergeError> {
        let Some((parent, name)) = path.rsplit_once('/') else {
            return Ok(path.to_string());
        };
        if let Some((written, resolved)) = &self.last_parent
            && written == parent
        {
            return Ok(join(resolved, name));
        }
        let not_a_directory = |at: &str| MergeError::NotADirectory {
            path: path.to_string(),
            parent: at.to_string(),
        };
        let layer = self.layer();
        let tree = self.merged.tree_mut();
        let mut at = String::new();
        for part in parent.split('/') {
            let here = join(&at, part);
            at = match tree.get(&here).map(|node| &node.kind) {
                Some(NodeKind::Directory) => here,
                Some(NodeKind::Symlink(_)) => match tree.resolve(&here) {
                    Ok((real, node)) if node.kind == NodeKind::Directory => real,
                    Ok(_) | Err(Unresolved::Missing(_) | Unresolved::Loop(_)) => return Err(not_a_directory(&here)),
                },
                Some(_) => return Err(not_a_directory(&here)),
                None => {
                    tree.insert(&here, implied_directory(layer));
                    here
                }
            };
        }
        let resolved = join(&at, name);
        self.last_parent = Some((parent.to_string(), at));
        Ok(resolved)
    }
}

/// The directory that runtimes create if an archive omits it.
fn implied_directory(layer: usize) -> Node {
    Node {
        kind: NodeKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: BTreeMap::new(),
        layer,
    }
}
