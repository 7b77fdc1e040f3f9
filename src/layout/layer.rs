//! Parses one layer's tar stream into entries with validated paths, and copies its bytes to a sink.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::Md5;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::limits::Limits;
use super::members::{Member, Members, TarError};
use super::secret::{Search, Secret};
use super::tree::{self, File, Node, NodeKind};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// AUFS metadata. These names hide nothing; runtimes skip them.
const AUFS: &str = ".wh..wh.";

/// Linux cannot create a longer path, or a component longer than [`NAME_MAX`].
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// Files of at least this size go to the sink in chunks as they arrive, and are compressed immediately and
/// independently of their position in the final layer.
pub const LARGE_FILE: u64 = 64 << 10;
/// The unit of compression. It affects a layer's digest.
pub const CHUNK: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative, without `.`, `..` or a trailing slash; the root is the empty path. For whiteouts: the hidden path.
    pub path: String,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    /// Only meaningful attributes: see [`is_meaningful`].
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A new node. For a regular file: the offset of its data in the layer's tar stream.
    Node { kind: NodeKind, offset: u64 },
    /// Another name of the file at this path.
    HardLink(String),
    /// Hides a path in lower layers.
    Whiteout,
    /// Hides everything in this directory in lower layers.
    Opaque,
}

/// The contents to keep, and the limits.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// Whether to keep the content of the file with this path and size in the tree.
    pub keep: &'a (dyn Fn(&str, u64) -> bool + Sync),
    /// The hashes of the file with this path to record in the tree.
    pub hash: &'a (dyn Fn(&str) -> Hashes + Sync),
    pub limits: Limits,
}

/// Hashes of a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    pub md5: bool,
    pub sha256: bool,
}

impl Default for ReadOptions<'_> {
    fn default() -> Self {
        Self {
            keep: &|_, _| false,
            hash: &|_| Hashes::default(),
            limits: Limits::default(),
        }
    }
}

/// Receives a layer's bytes.
pub trait Sink {
    /// Every byte of the uncompressed layer, in order.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Data of a regular file of at least [`LARGE_FILE`] bytes that begins at `offset` in the layer. Called in order;
    /// every chunk except a file's last has [`CHUNK`] bytes.
    fn large_chunk(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// Drops all bytes: for reading only the tree.
pub struct Discard;

impl Sink for Discard {
    fn bytes(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn large_chunk(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct ParsedLayer {
    pub entries: Vec<Entry>,
    /// SHA-256 of the uncompressed bytes.
    pub diff_id: [u8; 32],
    pub uncompressed_size: u64,
    /// The limits for the image's next layer.
    pub limits_left: Limits,
}

/// Contents kept so far, over all layers of an image.
#[derive(Debug, Default)]
pub struct KeptBytes(AtomicU64);

/// Reads one layer's uncompressed tar stream to its end.
pub fn parse(
    stream: impl Read,
    sink: &mut impl Sink,
    options: &ReadOptions<'_>,
    kept: &KeptBytes,
) -> Result<ParsedLayer, TarError> {
    let tee = Tee {
        inner: stream,
        sink,
        sha: Sha256::new(),
        passed: 0,
        limit: options.limits.layer_bytes,
    };
    let mut members = Members::new(tee, options.limits);
    let mut entries = Vec::new();
    let mut buffer = vec![0; CHUNK];
    while let Some(member) = members.next()? {
        let placed = judge_path(&member.path)?;
        if !matches!(placed, Some((_, None)))
            && let Some(secret) = search(&mut members, &mut buffer)?
        {
            return Err(refuse(
                &member.path,
                &format!("{secret} in data that no runtime unpacks"),
            ));
        }
        let Some((path, hidden)) = placed else { continue };
        let kind = match hidden {
            Some(hidden) => hidden,
            None => entry_kind(&path, &member, &mut members, &mut buffer, options, kept)?,
        };
        entries.push(Entry {
            path,
            kind,
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: member
                .xattrs
                .into_iter()
                .filter(|(name, _)| is_meaningful(name))
                .collect(),
        });
    }
    let (seen, path_bytes) = members.counts();
    let mut rest = Search::default();
    let tee = members.finish(&mut rest)?;
    if let Some(secret) = rest.finish() {
        return Err(refuse("the archive", &format!("{secret} after its end")));
    }
    Ok(ParsedLayer {
        limits_left: options.limits.after(tee.passed, seen, path_bytes),
        entries,
        diff_id: tee.sha.finalize().into(),
        uncompressed_size: tee.passed,
    })
}

fn entry_kind<R: Read, S: Sink>(
    path: &str,
    member: &Member,
    members: &mut Members<Tee<'_, R, S>>,
    buffer: &mut [u8],
    options: &ReadOptions<'_>,
    kept: &KeptBytes,
) -> Result<EntryKind, TarError> {
    let (major, minor) = member.device;
    let link = || member.link.clone().unwrap_or_default();
    let kind = match member.kind {
        EntryType::Directory => NodeKind::Directory,
        EntryType::Char => NodeKind::CharDevice { major, minor },
        EntryType::Block => NodeKind::BlockDevice { major, minor },
        EntryType::Fifo => NodeKind::Fifo,
        EntryType::Symlink => {
            let target = link();
            if target.is_empty() || target.len() > PATH_MAX || target.chars().any(char::is_control) {
                return Err(refuse(
                    &member.path,
                    "its link target is empty, too long or holds control characters",
                ));
            }
            NodeKind::Symlink(target)
        }
        // Docker joins the target to the root before it cleans it: unlike a name, `/../x` leads out of the root.
        EntryType::Link => match judge_path(link().trim_start_matches('/'))? {
            Some((target, None)) if !target.is_empty() => return Ok(EntryKind::HardLink(target)),
            _ => {
                return Err(refuse(
                    &member.path,
                    "it is a hard link to something that is not a file",
                ));
            }
        },
        _ => NodeKind::File(read_file(path, member, members, buffer, options, kept)?),
    };
    if path.is_empty() && kind != NodeKind::Directory {
        return Err(refuse(&member.path, "the root is not a directory"));
    }
    Ok(EntryKind::Node {
        kind,
        offset: member.offset,
    })
}

fn read_file<R: Read, S: Sink>(
    path: &str,
    member: &Member,
    members: &mut Members<Tee<'_, R, S>>,
    buffer: &mut [u8],
    options: &ReadOptions<'_>,
    kept: &KeptBytes,
) -> Result<File, TarError> {
    let size = member.size;
    let keep = size <= options.limits.kept_file_bytes && (options.keep)(path, size) && kept.take(size, options.limits);
    let mut content = Vec::with_capacity(if keep { size as usize } else { 0 });
    let hashes = (options.hash)(path);
    let mut sha = hashes.sha256.then(Sha256::new);
    let mut md5 = hashes.md5.then(Md5::new);
    let mut head: Arc<[u8]> = Arc::default();
    let mut done = 0;
    let mut search = Search::default();
    while members.remaining() > 0 {
        let n = members.read_data(buffer)?;
        let data = &buffer[..n];
        search.update(data);
        if done == 0 {
            head = tree::head(data).into();
        }
        if size >= LARGE_FILE {
            members.get_mut().sink.large_chunk(member.offset + done, data)?;
        }
        if keep {
            content.extend_from_slice(data);
        }
        if let Some(sha) = &mut sha {
            sha.update(data);
        }
        if let Some(md5) = &mut md5 {
            md5.update(data);
        }
        done += n as u64;
    }
    Ok(File {
        size,
        secret: search.finish(),
        head,
        content: keep.then(|| content.into()),
        sha256: sha.map(|sha| sha.finalize().into()),
        md5: md5.map(|md5| md5.finalize().into()),
        hard_link_to: None,
    })
}

/// The first secret in the member's data.
fn search<R: Read>(members: &mut Members<R>, buffer: &mut [u8]) -> Result<Option<Secret>, TarError> {
    let mut search = Search::default();
    while members.remaining() > 0 {
        let n = members.read_data(buffer)?;
        search.update(&buffer[..n]);
    }
    Ok(search.finish())
}

impl KeptBytes {
    fn take(&self, size: u64, limits: Limits) -> bool {
        let fits = |kept: u64| kept.checked_add(size).filter(|sum| *sum <= limits.kept_total_bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

impl Entry {
    /// The node of this entry; `None` for entries without a node of their own.
    pub fn into_node(self, layer: usize) -> Option<Node> {
        let EntryKind::Node { kind, .. } = self.kind else {
            return None;
        };
        Some(Node {
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs,
            layer,
        })
    }
}

/// Whether an extended attribute changes the image's behaviour. The others belong to a graph driver or the build host
/// (`trusted.overlay.*`, `security.selinux`).
fn is_meaningful(xattr: &str) -> bool {
    xattr == "security.capability" || xattr.starts_with("user.") || xattr.starts_with("system.posix_acl_")
}

/// The clean path, and for a whiteout the hidden path. `None` for names that runtimes ignore.
fn judge_path(raw: &str) -> Result<Option<(String, Option<EntryKind>)>, TarError> {
    if raw.is_empty() {
        return Err(refuse(raw, "an empty name"));
    }
    if raw.chars().any(char::is_control) {
        return Err(refuse(raw, "its name holds control characters"));
    }
    let mut path = String::with_capacity(raw.len());
    for part in clean(raw)? {
        if part.len() > NAME_MAX {
            return Err(refuse(raw, "a name longer than 255 bytes"));
        }
        if part.starts_with(AUFS) && part != OPAQUE {
            return Ok(None);
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    }
    if path.len() > PATH_MAX {
        return Err(refuse(
            &raw.chars().take(80).collect::<String>(),
            "a path longer than 4095 bytes",
        ));
    }
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if dir.split('/').any(|part| part.starts_with(WHITEOUT)) {
        return Err(refuse(raw, "it is below a whiteout"));
    }
    if name == OPAQUE {
        return Ok(Some((dir.to_string(), Some(EntryKind::Opaque))));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(Some((path, None)));
    };
    if matches!(hidden, "" | "." | "..") {
        return Err(refuse(raw, "a whiteout that names no file"));
    }
    let hidden = join(dir, hidden);
    Ok(Some((hidden, Some(EntryKind::Whiteout))))
}

/// The components of a name, cleaned as docker cleans it (Go's `filepath.Clean`): an absolute name begins at the image's root,
/// and `a/../b` is `b`. A relative name that leads out of the root is refused.
fn clean(raw: &str) -> Result<Vec<&str>, TarError> {
    let mut parts = Vec::new();
    for part in raw.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_some() || raw.starts_with('/') => {}
            ".." => return Err(refuse(raw, "its path leads out of the root with \"..\"")),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_string()
    } else {
        format!("{dir}/{name}")
    }
}

fn refuse(path: &str, reason: &str) -> TarError {
    TarError::BadMember {
        path: path.to_string(),
        reason: format!("refused: {reason}"),
    }
}

/// Hashes and counts the bytes, and copies them to the sink.
struct Tee<'a, R, S> {
    inner: R,
    sink: &'a mut S,
    sha: Sha256,
    passed: u64,
    limit: u64,
}

impl<R: Read, S: Sink> Read for Tee<'_, R, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.passed += n as u64;
        if self.passed > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the layer exceeds the limit of {} bytes", self.limit),
            ));
        }
        self.sha.update(&buffer[..n]);
        self.sink.bytes(&buffer[..n])?;
        Ok(n)
    }
}
