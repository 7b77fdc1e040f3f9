//! Writes a layer in canonical form: the difference between the tree below it and the tree with it, as a deterministic
//! tar stream.
//!
//! Engines and graph drivers write the same change in different ways: entry order, header format, owner names, opaque
//! directories or one whiteout per name, unchanged copied-up files, times with or without fractions. A difference of
//! trees contains none of that. Rules:
//!
//! - Entries are sorted by the bytes of their paths. Every entry's parent directories are included, even unchanged
//!   ones: drivers that unpack each layer alone take mode and owner from the layer. Other unchanged entries are
//!   omitted.
//! - Times are between 1970 and the requested epoch. A directory whose only change is its time keeps its old time; a
//!   new or changed directory gets the epoch, because engines set arbitrary times there.
//! - Owners are numeric; only meaningful extended attributes are kept.
//! - The first path of an inode has the data; the others are hard links to it.
//! - One whiteout per topmost hidden path; no opaque markers.
//! - ustar headers, with PAX records for values that do not fit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use tar::{EntryType, Header};

use super::layer::{Entry, EntryKind, join};
use super::members::{BLOCK, XATTR_PREFIX};
use super::merge::{Data, MergeError, Merged};
use super::tree::{Node, NodeKind, Tree};

/// The maximum of an eleven-digit octal field: a size or a time.
const OCTAL_11: u64 = 0o777_7777_7777;
/// The maximum of a seven-digit octal field: an owner.
const OCTAL_7: u64 = 0o777_7777;

/// A member of a canonical layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The member's name: with `.wh.` for a whiteout, without the slash for a directory.
    pub name: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Whiteout,
    /// The node at this path in the merged tree.
    Node,
    /// A regular file, and where its data are.
    File {
        data: Data,
        size: u64,
    },
    HardLink(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("reading the spooled layer: {0}")]
    Io(#[from] io::Error),
}

/// Applies a layer to `merged` and returns its changes in canonical order. If nothing changes, returns none and leaves
/// `merged` unchanged.
///
/// `same_data` returns whether two ranges of this length are equal.
pub fn apply(
    merged: &mut Merged,
    mut entries: Vec<Entry>,
    source: usize,
    epoch: i64,
    same_data: &dyn Fn(Data, Data, u64) -> io::Result<bool>,
) -> Result<Vec<Change>, CanonicalError> {
    let lower = merged.clone();
    for entry in &mut entries {
        if let EntryKind::Node { kind, .. } = &entry.kind {
            normalise(&mut entry.mode, &mut entry.mtime, kind, epoch);
        }
    }
    merged.apply(entries, source)?;
    let changed = take_back_unchanged(&lower, merged, epoch, same_data)?;
    let hidden = hidden_paths(&lower.tree, &merged.tree);
    if changed.is_empty() && hidden.is_empty() {
        *merged = lower;
        return Ok(Vec::new());
    }
    link_first_paths(merged, &changed);
    Ok(changes(merged, changed, &hidden, epoch))
}

fn normalise(mode: &mut u32, mtime: &mut i64, kind: &NodeKind, epoch: i64) {
    *mtime = clamp(*mtime, epoch);
    // No file system stores the mode of a symbolic link; archives contain arbitrary ones.
    if let NodeKind::Symlink(_) = kind {
        *mode = 0o777;
    }
}

fn clamp(mtime: i64, epoch: i64) -> i64 {
    mtime.min(epoch).clamp(0, OCTAL_11 as i64)
}

/// The paths that the topmost layer really changes; restores the lower node of all others.
fn take_back_unchanged(
    lower: &Merged,
    merged: &mut Merged,
    epoch: i64,
    same_data: &dyn Fn(Data, Data, u64) -> io::Result<bool>,
) -> Result<BTreeSet<String>, CanonicalError> {
    let layer = merged.layers() - 1;
    let mut changed = BTreeSet::new();
    let mut unchanged = Vec::new();
    for (path, node) in merged.tree.iter() {
        if node.layer != layer {
            // A repeated directory equals the old one, except for its time.
            if node.kind == NodeKind::Directory
                && let Some(old) = lower.tree.get(path).filter(|old| old.mtime != node.mtime)
            {
                unchanged.push((path.to_string(), old.clone()));
            }
            continue;
        }
        let default_root = path.is_empty() && lower.tree.is_empty() && is_plain_root(node);
        let same = default_root
            || match lower.tree.get(path) {
                Some(old) => {
                    same_metadata(old, node, epoch)
                        && match (lower.data(path), merged.data(path)) {
                            (Some(a), Some(b)) => a == b || same_data(a, b, file_size(node))?,
                            (None, None) => true,
                            _ => false,
                        }
                }
                None => false,
            };
        if !same {
            changed.insert(path.to_string());
        } else if let Some(old) = lower.tree.get(path) {
            unchanged.push((path.to_string(), old.clone()));
        }
    }
    for (path, old) in unchanged {
        merged.restore(&path, old);
    }
    Ok(changed)
}

fn is_plain_root(node: &Node) -> bool {
    node.mode == 0o755 && node.uid == 0 && node.gid == 0 && node.xattrs.is_empty()
}

fn file_size(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::File(file) => file.size,
        _ => 0,
    }
}

/// Whether two nodes are equal in canonical form.
fn same_metadata(old: &Node, new: &Node, epoch: i64) -> bool {
    let mut old = old.clone();
    normalise(&mut old.mode, &mut old.mtime, &old.kind, epoch);
    let any_time = new.kind == NodeKind::Directory;
    old.same_but_time(new) && (any_time || old.mtime == new.mtime)
}

/// The topmost paths that exist only in `lower`, without those below another hidden path.
fn hidden_paths(lower: &Tree, upper: &Tree) -> Vec<String> {
    lower
        .iter()
        .map(|(path, _)| path)
        .filter(|path| upper.get(path).is_none())
        .filter(|path| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            upper.get(parent).is_some_and(|node| node.kind == NodeKind::Directory)
        })
        .map(str::to_string)
        .collect()
}

/// Makes the first changed path of every inode the target of the other paths' hard links.
fn link_first_paths(merged: &mut Merged, changed: &BTreeSet<String>) {
    let mut first: HashMap<Data, &str> = HashMap::new();
    let mut links = Vec::new();
    for path in changed {
        let Some(data) = merged.data(path) else { continue };
        match first.get(&data) {
            Some(target) => links.push((path, Some(target.to_string()))),
            None => {
                first.insert(data, path);
                links.push((path, None));
            }
        }
    }
    for (path, target) in links {
        if let Some(Node {
            kind: NodeKind::File(file),
            ..
        }) = merged.tree_mut().get_mut(path)
        {
            file.hard_link_to = target;
        }
    }
}

fn changes(merged: &mut Merged, changed: BTreeSet<String>, hidden: &[String], epoch: i64) -> Vec<Change> {
    for path in &changed {
        if let Some(node) = merged
            .tree_mut()
            .get_mut(path)
            .filter(|node| node.kind == NodeKind::Directory)
        {
            node.mtime = clamp(epoch, epoch);
        }
    }
    let mut members = BTreeMap::new();
    for path in hidden {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        members.insert(join(dir, &format!(".wh.{name}")), What::Whiteout);
    }
    for path in changed {
        let what = match (&merged.tree.get(&path).map(|node| &node.kind), merged.data(&path)) {
            (Some(NodeKind::File(file)), Some(data)) => match &file.hard_link_to {
                Some(target) => What::HardLink(target.clone()),
                None => What::File { data, size: file.size },
            },
            _ => What::Node,
        };
        members.insert(path, what);
    }
    let mut parents = BTreeSet::new();
    for name in members.keys() {
        let mut at = name.as_str();
        while let Some((parent, _)) = at.rsplit_once('/') {
            if members.contains_key(parent) || !parents.insert(parent.to_string()) {
                break;
            }
            at = parent;
        }
    }
    // Parents are written with a clamped time, which the next reader sees.
    for parent in &parents {
        if let Some(node) = merged.tree_mut().get_mut(parent) {
            node.mtime = clamp(node.mtime, epoch);
        }
    }
    members.extend(parents.into_iter().map(|parent| (parent, What::Node)));
    members.into_iter().map(|(name, what)| Change { name, what }).collect()
}

/// The header blocks of a change, including extension headers. `node` is the node of [`What::Node`], [`What::File`] and
/// [`What::HardLink`].
pub fn header(change: &Change, node: Option<&Node>, epoch: i64) -> io::Result<Vec<u8>> {
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut header = Header::new_ustar();
    let kind = match (&change.what, node.map(|node| &node.kind)) {
        (What::HardLink(target), _) => {
            set_link(&mut header, target, &mut records)?;
            EntryType::Link
        }
        (_, Some(NodeKind::Directory)) => EntryType::Directory,
        (_, Some(NodeKind::Symlink(target))) => {
            set_link(&mut header, target, &mut records)?;
            EntryType::Symlink
        }
        (_, Some(NodeKind::Fifo)) => EntryType::Fifo,
        (_, Some(NodeKind::CharDevice { major, minor })) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            EntryType::Char
        }
        (_, Some(NodeKind::BlockDevice { major, minor })) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            EntryType::Block
        }
        _ => EntryType::Regular,
    };
    header.set_entry_type(kind);
    let name = match kind {
        EntryType::Directory if change.name.is_empty() => "./".to_string(),
        EntryType::Directory => format!("{}/", change.name),
        _ => change.name.clone(),
    };
    set_name(&mut header, &name, &mut records)?;
    let mut number = |value: u64, limit: u64, key: &str| {
        if value <= limit {
            return value;
        }
        records.insert(key.into(), value.to_string().into());
        0
    };
    match (&change.what, node) {
        (What::File { size, .. }, _) => header.set_size(number(*size, OCTAL_11, "size")),
        _ => header.set_size(0),
    }
    match node {
        Some(node) => {
            header.set_mode(node.mode);
            header.set_uid(number(node.uid.into(), OCTAL_7, "uid"));
            header.set_gid(number(node.gid.into(), OCTAL_7, "gid"));
            header.set_mtime(clamp(node.mtime, epoch) as u64);
            // A hard link shares the attributes of its inode, which the first path sets.
            if kind != EntryType::Link {
                for (name, value) in &node.xattrs {
                    records.insert(format!("{XATTR_PREFIX}{name}"), value.clone());
                }
            }
        }
        None => {
            header.set_mode(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
        }
    }
    header.set_cksum();
    let mut blocks = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        blocks.extend(pax_header(&records)?);
    }
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

fn set_name(header: &mut Header, name: &str, records: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    // The crate strips a leading "./", and thus the root's name.
    if name == "./" {
        header.as_old_mut().name[..2].copy_from_slice(b"./");
        return Ok(());
    }
    if name.is_ascii() && header.set_path(name).is_ok() {
        return Ok(());
    }
    records.insert("path".into(), name.into());
    // Only readers without PAX use this name.
    header.set_path(short(name))
}

fn set_link(header: &mut Header, target: &str, records: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    if target.is_ascii() && header.set_link_name_literal(target).is_ok() {
        return Ok(());
    }
    records.insert("linkpath".into(), target.into());
    header.set_link_name_literal(short(target))
}

fn short(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii() { c } else { '_' })
        .take(99)
        .collect();
    name.trim_end_matches('/').to_string()
}

fn pax_header(records: &BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let mut header = Header::new_ustar();
    header.set_path("PaxHeaders.0")?;
    header.set_entry_type(EntryType::XHeader);
    header.set_size(body.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut blocks = header.as_bytes().to_vec();
    blocks.extend_from_slice(&body);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    Ok(blocks)
}
