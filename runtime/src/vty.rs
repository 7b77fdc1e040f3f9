//! FRR's vty protocol: a command line for a daemon -> its reply, a text and a status.
//!
//! A request is the line and a NUL. A reply is text, three NULs and a status byte. A daemon answers requests in order and sends
//! nothing else. FRR's own vtysh uses this protocol, which is the same in FRR 3 to 10.

mod reply;

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use reply::{LIMIT, Malformed, Reply, ReplyBuffer};

/// The longest line that FRR's daemons accept (VTY_BUFSIZ includes the NUL).
pub const MAX_LINE: usize = 4095;

/// The interval between attempts while another client locks the daemon's configuration.
const LOCK_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum VtyError {
    #[error("{daemon} cannot be reached at {}: {source}{}", path.display(), advice(source, path))]
    Connect {
        daemon: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{daemon} did not answer {line:?} within {timeout:?}")]
    Timeout {
        daemon: String,
        line: String,
        timeout: Duration,
    },
    #[error("{daemon} closed the connection during {line:?}: {source}")]
    Closed {
        daemon: String,
        line: String,
        source: io::Error,
    },
    #[error("invalid reply of {daemon} to {line:?}: {source}")]
    Malformed {
        daemon: String,
        line: String,
        source: Malformed,
    },
    #[error("cannot send a line of {length} bytes: FRR accepts up to {MAX_LINE} bytes without a NUL")]
    Line { length: usize },
    #[error("cannot list the sockets in {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// The fix for a socket without permission.
fn advice(source: &io::Error, path: &Path) -> String {
    match path.symlink_metadata() {
        Ok(meta) if source.kind() == ErrorKind::PermissionDenied => {
            format!(
                " (the socket belongs to group {0}: add {0} to the pod's supplementalGroups)",
                meta.gid()
            )
        }
        _ => String::new(),
    }
}

impl VtyError {
    /// Whether no process listens on the socket.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
    }
}

/// A connection to one daemon.
#[derive(Debug)]
pub struct Connection {
    daemon: String,
    stream: UnixStream,
    timeout: Duration,
}

impl Connection {
    /// Connects to `DIRECTORY/DAEMON.vty`. `timeout` applies to the connection and to each reply.
    pub fn open(directory: &Path, daemon: &str, timeout: Duration) -> Result<Self, VtyError> {
        let path = directory.join(format!("{daemon}.vty"));
        match connect(&path, timeout) {
            Ok(stream) => Ok(Self {
                daemon: daemon.to_string(),
                stream,
                timeout,
            }),
            Err(source) => Err(VtyError::Connect {
                daemon: daemon.to_string(),
                path,
                source,
            }),
        }
    }

    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Sends a line and waits for the reply. Repeats the line while another client locks the configuration.
    pub fn execute(&mut self, line: &str) -> Result<Reply, VtyError> {
        if line.len() > MAX_LINE || line.contains('\0') {
            return Err(VtyError::Line { length: line.len() });
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            let reply = self.exchange(line, deadline)?;
            if !reply.is_locked() || Instant::now() + LOCK_RETRY >= deadline {
                return Ok(reply);
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    fn exchange(&mut self, line: &str, deadline: Instant) -> Result<Reply, VtyError> {
        let failed = |connection: &Self, source: io::Error| match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => VtyError::Timeout {
                daemon: connection.daemon.clone(),
                line: line.to_string(),
                timeout: connection.timeout,
            },
            _ => VtyError::Closed {
                daemon: connection.daemon.clone(),
                line: line.to_string(),
                source,
            },
        };
        let mut request = Vec::with_capacity(line.len() + 1);
        request.extend_from_slice(line.as_bytes());
        request.push(0);
        self.stream
            .set_write_timeout(Some(self.timeout))
            .map_err(|e| failed(self, e))?;
        self.stream.write_all(&request).map_err(|e| failed(self, e))?;

        let mut buffer = ReplyBuffer::default();
        let mut chunk = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(self, ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(|e| failed(self, e))?;
            let read = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(failed(self, ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(self, error)),
            };
            match buffer.push(&chunk[..read]) {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(reply),
                Err(source) => {
                    return Err(VtyError::Malformed {
                        daemon: self.daemon.clone(),
                        line: line.to_string(),
                        source,
                    });
                }
            }
        }
    }
}

/// Connects with a timeout, which the standard library lacks: a daemon whose queue is full does not accept.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// The daemons whose sockets are in a directory, in the order of FRR's vtysh. watchfrr is left out: it has no configuration and
/// no output of its own.
pub fn daemons(directory: &Path) -> Result<Vec<String>, VtyError> {
    const ORDER: [&str; 20] = [
        "mgmtd", "zebra", "ripd", "ripngd", "ospfd", "ospf6d", "ldpd", "bgpd", "isisd", "pimd", "pim6d", "nhrpd",
        "eigrpd", "babeld", "fabricd", "pbrd", "staticd", "bfdd", "vrrpd", "pathd",
    ];
    let failed = |source| VtyError::Directory {
        path: directory.to_path_buf(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let daemon = name.to_str().and_then(|name| name.strip_suffix(".vty"));
        if let Some(daemon) = daemon.filter(|daemon| *daemon != "watchfrr") {
            found.push(daemon.to_string());
        }
    }
    found.sort_by_key(|daemon| {
        let place = ORDER.iter().position(|known| known == daemon);
        (place.unwrap_or(ORDER.len()), daemon.clone())
    });
    Ok(found)
}

#[cfg(test)]
mod tests;
