//! The path of the agent's socket -> the open inode of a socket that belongs to the caller.
//!
//! The helper connects to it as root and executes commands from it. So the socket must belong to the caller, and its path must not
//! contain links. The caller owns the directory and can replace the socket at any time; therefore the inode stays open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};

use super::arguments::SocketPath;

#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct SocketError {
    path: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot open {part}: {source}")]
    Open { part: String, source: io::Error },
    #[error("/tmp is not a directory that belongs to root")]
    Parent,
    #[error(
        "its directory must have mode 0700 and belong to the caller, uid {caller}, but has mode {mode:04o} and uid {uid}"
    )]
    Directory { caller: u32, uid: u32, mode: u32 },
    #[error("it is not a socket")]
    NotASocket,
    #[error("it belongs to uid {uid}, not to the caller, uid {caller}")]
    Owner { caller: u32, uid: u32 },
}

/// Ignores the setgid bit, which the directory inherits in a volume with an fsGroup.
const PERMISSIONS: u32 = 0o777;

pub fn open(path: &SocketPath, caller: u32) -> Result<OwnedFd, SocketError> {
    walk(path, caller).map_err(|problem| SocketError {
        path: path.to_string(),
        problem,
    })
}

fn walk(path: &SocketPath, caller: u32) -> Result<OwnedFd, Problem> {
    let (root, _) = step(&CWD, "/")?;
    let (tmp, stat) = step(&root, SocketPath::PARENT)?;
    if kind(&stat) != FileType::Directory || stat.st_uid != 0 {
        return Err(Problem::Parent);
    }
    let (directory, stat) = step(&tmp, path.directory())?;
    if kind(&stat) != FileType::Directory || stat.st_uid != caller || stat.st_mode & PERMISSIONS != 0o700 {
        return Err(Problem::Directory {
            caller,
            uid: stat.st_uid,
            mode: stat.st_mode & 0o7777,
        });
    }
    let (socket, stat) = step(&directory, SocketPath::NAME)?;
    if kind(&stat) != FileType::Socket {
        return Err(Problem::NotASocket);
    }
    if stat.st_uid != caller {
        return Err(Problem::Owner {
            caller,
            uid: stat.st_uid,
        });
    }
    Ok(socket)
}

/// Opens one part of the path. A link is not followed but opened itself, and is then not a directory or socket.
fn step(from: &impl AsFd, name: &str) -> Result<(OwnedFd, Stat), Problem> {
    let failed = |source: rustix::io::Errno| Problem::Open {
        part: name.to_string(),
        source: source.into(),
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&node).map_err(failed)?;
    Ok((node, stat))
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
