//! Checks that only root can change what a path refers to.
//!
//! Starting at `/`, each part is opened relative to the previous one, without following links. Each part must belong to root, and
//! group and others must not be able to write to it unless its mount is read-only: Kubernetes' ConfigMap volumes have mode 0777
//! on a read-only mount. (An ACL that permits writing is visible in the group bits, which are its mask.)
//!
//! Links are resolved here, because the files of a ConfigMap are links (`x.conf -> ..data/x.conf`, `..data -> ..2026_01_02_…`): a
//! link must belong to root and be in a checked directory, and its target must be below that directory. The target is
//! checked in the same way.
//!
//! Hard links need no rule: a user who may not write to a file cannot change it through another name either, and only root can
//! create names in these directories.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, StatVfsMountFlags};

use super::arguments::ConfigPath;

const MAX_LINKS: usize = 8;
const MAX_FILES: usize = 256;
const OTHERS_WRITE: u32 = 0o022;

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct PathError {
    /// The path in the request.
    path: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot open {part:?}: {source}")]
    Open { part: String, source: io::Error },
    #[error("{part:?} belongs to uid {uid}, not to root")]
    Owner { part: String, uid: u32 },
    #[error("{part:?} has mode {mode:04o}: others than root can write to it, and its mount is not read-only")]
    Writable { part: String, mode: u32 },
    #[error("{part:?} is a link to {target:?}, which is not below the directory of the link")]
    Link { part: String, target: String },
    #[error("more than {MAX_LINKS} links")]
    Links,
    #[error("{part:?} is not a {wanted}")]
    Kind { part: String, wanted: &'static str },
    #[error("more than {MAX_FILES} files")]
    Files,
}

impl PathError {
    pub fn is_not_found(&self) -> bool {
        matches!(&self.problem, Problem::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

pub fn file(path: &ConfigPath) -> Result<(), PathError> {
    system_file(path.as_str())
}

/// For paths that are constants of this program.
pub fn system_file(path: &str) -> Result<(), PathError> {
    Walk::from_root(path)
        .and_then(|walk| walk.to(path.as_bytes(), Kind::File))
        .map(|_| ())
        .map_err(|problem| PathError::new(path, problem))
}

/// Checks a directory and each file that oslo.config reads in it (`*.conf`, not hidden).
pub fn directory(path: &ConfigPath) -> Result<(), PathError> {
    let path = path.as_str();
    let failed = |problem| PathError::new(path, problem);
    let walk = Walk::from_root(path).map_err(failed)?;
    let found = walk.to(path.as_bytes(), Kind::Directory).map_err(failed)?;
    let names = files_of(&found).map_err(failed)?;
    for name in names {
        let problem = |problem| PathError::new(format!("{path}/{}", lossy(&name)), problem);
        let directory = found.try_clone().map_err(|source| {
            problem(Problem::Open {
                part: path.to_string(),
                source,
            })
        })?;
        Walk { directory }.to(&name, Kind::File).map_err(problem)?;
    }
    Ok(())
}

fn files_of(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Problem> {
    let unreadable = |source: rustix::io::Errno| Problem::Open {
        part: ".".to_string(),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(directory, ".", flags, Mode::empty()).map_err(unreadable)?;
    let mut names = Vec::new();
    for entry in Dir::new(readable).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_bytes();
        if name.ends_with(b".conf") && !name.starts_with(b".") {
            names.push(name.to_vec());
        }
        if names.len() > MAX_FILES {
            return Err(Problem::Files);
        }
    }
    Ok(names)
}

impl PathError {
    fn new(path: impl Into<String>, problem: Problem) -> Self {
        Self {
            path: path.into(),
            problem,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Directory,
}

/// The current directory of the walk. All parts up to here passed the check.
struct Walk {
    directory: OwnedFd,
}

impl Walk {
    fn from_root(path: &str) -> Result<Self, Problem> {
        debug_assert!(path.starts_with('/'));
        let root = open(&CWD, b"/")?;
        check_node(&root, b"/")?;
        Ok(Self { directory: root })
    }

    /// Walks along `path`, relative to the current directory.
    fn to(mut self, path: &[u8], kind: Kind) -> Result<OwnedFd, Problem> {
        let mut ahead: VecDeque<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let node = open(&self.directory, &name)?;
            match check_node(&node, &name)? {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Problem::Links);
                    }
                    let target = rustix::fs::readlinkat(&node, "", Vec::new())
                        .map_err(|source| open_error(&name, source))?
                        .into_bytes();
                    if !is_below(&target) {
                        return Err(Problem::Link {
                            part: lossy(&name),
                            target: lossy(&target),
                        });
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        ahead.push_front(part.to_vec());
                    }
                }
                FileType::Directory => {
                    self.directory = node;
                    if ahead.is_empty() && kind == Kind::File {
                        return Err(not_a(&name, "file"));
                    }
                }
                FileType::RegularFile if ahead.is_empty() && kind == Kind::File => return Ok(node),
                FileType::RegularFile => return Err(not_a(&name, "directory")),
                _ => return Err(not_a(&name, "file or directory")),
            }
        }
        match kind {
            Kind::Directory => Ok(self.directory),
            Kind::File => Err(not_a(path, "file")),
        }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty())
}

/// Not absolute and without `..`, so that the target is below a checked directory.
fn is_below(target: &[u8]) -> bool {
    target
        .split(|b| *b == b'/')
        .all(|part| !matches!(part, b"" | b"." | b".."))
}

fn open(directory: &impl std::os::fd::AsFd, name: &[u8]) -> Result<OwnedFd, Problem> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, std::ffi::OsStr::from_bytes(name), flags, Mode::empty())
        .map_err(|source| open_error(name, source))
}

fn open_error(name: &[u8], source: rustix::io::Errno) -> Problem {
    Problem::Open {
        part: lossy(name),
        source: source.into(),
    }
}

/// Checks that only root can change `node`, and returns its type. The mode of a link has no meaning; its directory's mode counts.
fn check_node(node: &OwnedFd, name: &[u8]) -> Result<FileType, Problem> {
    let stat = rustix::fs::fstat(node).map_err(|source| open_error(name, source))?;
    if stat.st_uid != 0 {
        return Err(Problem::Owner {
            part: lossy(name),
            uid: stat.st_uid,
        });
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink || stat.st_mode & OTHERS_WRITE == 0 {
        return Ok(kind);
    }
    let mount = rustix::fs::fstatvfs(node).map_err(|source| open_error(name, source))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(kind);
    }
    Err(Problem::Writable {
        part: lossy(name),
        mode: stat.st_mode & 0o7777,
    })
}

fn not_a(name: &[u8], wanted: &'static str) -> Problem {
    Problem::Kind {
        part: lossy(name),
        wanted,
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
