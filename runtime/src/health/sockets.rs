//! The open sockets of a process -> the peers it is connected to.
//!
//! /proc lists the sockets of the process; the kernel (NETLINK_SOCK_DIAG, which needs no privilege) reports the peer of each. The
//! peer of a UNIX socket is identified by the inode of the file that the server bound, because client and server may see the
//! file under different paths. The kernel reports one network namespace only: the agent's container shares the host's, as
//! Open vSwitch does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::sock_diag::{self, TcpSocket};
use crate::agent_options::{Expected, Remote};
use crate::netlink::Socket;

/// SOCK_STREAM. Sockets of other types are for logs.
const STREAM: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The file that the server listens on.
    Unix {
        inode: u32,
    },
    Tcp(SocketAddr),
}

/// The established stream connections of a process. The process must belong to the caller, or the caller must be root.
pub fn peers(pid: u32) -> io::Result<Vec<Peer>> {
    let own = inodes(pid)?;
    let mut netlink = Socket::open(NETLINK_SOCK_DIAG)?.skip_unparsed();
    let sockets = netlink.dump(&sock_diag::unix_sockets(), |socket| {
        let peer = socket.peer.filter(|_| own.contains(&socket.inode));
        let wanted = socket.kind == STREAM && (peer.is_some() || socket.file.is_some());
        wanted.then_some((socket.inode, peer, socket.file))
    })?;
    let files: BTreeMap<u32, u32> = sockets
        .iter()
        .filter_map(|(inode, _, file)| Some((*inode, (*file)?)))
        .collect();
    let connected = sockets.iter().filter_map(|(_, peer, _)| files.get(&(*peer)?));
    let mut peers: Vec<Peer> = connected.map(|&inode| Peer::Unix { inode }).collect();

    for request in [sock_diag::tcp4_sockets(), sock_diag::tcp6_sockets()] {
        let connected = netlink.dump(&request, |TcpSocket { inode, remote }| {
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            own.contains(&inode).then_some(Peer::Tcp(remote))
        });
        match connected {
            Ok(connected) => peers.extend(connected),
            // The kernel has no IPv6, or lacks the diag module: there are no such connections.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(peers)
}

/// The inodes of a process's open sockets.
fn inodes(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // The descriptor may have been closed since the listing.
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        let inode = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// Whether each expected connection exists. An expected connection without a known remote takes any connection that matches no
/// other one.
pub fn compare<'a>(expected: &'a [Expected], peers: &[Peer]) -> Vec<(&'a Expected, bool)> {
    let mut left: Vec<Peer> = peers.to_vec();
    let mut found = Vec::new();
    for one in expected.iter().filter(|one| !one.remotes.is_empty()) {
        let place = left
            .iter()
            .position(|peer| one.remotes.iter().any(|remote| matches(remote, *peer)));
        // Two options may name the same server; each has its own connection.
        place.map(|place| left.swap_remove(place));
        found.push((one, place.is_some()));
    }
    for one in expected.iter().filter(|one| one.remotes.is_empty()) {
        found.push((one, left.pop().is_some()));
    }
    found
}

fn matches(remote: &Remote, peer: Peer) -> bool {
    match (remote, peer) {
        // The kernel reports the lower 32 bits of the inode number and not the file system. Another file system's socket could
        // match only if the agent is connected to it.
        (Remote::Unix(path), Peer::Unix { inode }) => {
            std::fs::metadata(path).is_ok_and(|file| file.ino() as u32 == inode)
        }
        (Remote::Tcp { host, port, .. }, Peer::Tcp(address)) => {
            // A host name can have any address.
            let same = host
                .parse::<IpAddr>()
                .map_or(true, |host| host.to_canonical() == address.ip());
            same && *port == address.port()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::agent_options::Scheme;

    fn expected(option: &'static str, remotes: &[Remote]) -> Expected {
        let remotes = remotes.to_vec();
        let section = "DEFAULT";
        Expected {
            section,
            option,
            remotes,
        }
    }

    fn tcp(host: &str, port: u16) -> Remote {
        Remote::Tcp {
            scheme: Scheme::Tcp,
            host: host.to_string(),
            port,
        }
    }

    fn verdicts(expected: &[Expected], peers: &[Peer]) -> Vec<(&'static str, bool)> {
        compare(expected, peers)
            .iter()
            .map(|(one, connected)| (one.option, *connected))
            .collect()
    }

    #[test]
    fn the_kernel_reports_the_peers_of_this_process() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("db.sock"), directory.path().join("renamed.sock"));
        let server = UnixListener::bind(&here).unwrap();
        let unix = expected("ovsdb_connection", &[Remote::Unix(there.clone())]);
        let connected = || peers(std::process::id()).unwrap();
        // The client sees the socket under another path.
        std::fs::rename(&here, &there).unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &connected()),
            [("ovsdb_connection", false)]
        );
        let client = UnixStream::connect(&there).unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &connected()),
            [("ovsdb_connection", false)],
            "a connection that is not accepted does not count"
        );
        let _accepted = server.accept().unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &connected()),
            [("ovsdb_connection", true)]
        );
        drop(client);
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &connected()),
            [("ovsdb_connection", false)]
        );

        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let remote = expected("ovn_nb_connection", &[tcp(&address.ip().to_string(), address.port())]);
            let remote = std::slice::from_ref(&remote);
            assert_eq!(
                verdicts(remote, &connected()),
                [("ovn_nb_connection", false)],
                "a listening socket does not count"
            );
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(verdicts(remote, &connected()), [("ovn_nb_connection", true)]);
            assert!(connected().contains(&Peer::Tcp(address)));
            drop(client);
        }
    }

    #[test]
    fn each_connection_counts_once() {
        let address = |text: &str| Peer::Tcp(text.parse().unwrap());
        let (south, north) = (address("10.0.0.1:6642"), address("10.0.0.1:6641"));
        let local = expected("a", &[tcp("10.0.0.1", 6642)]);
        let any = expected("b", &[]);
        let both = [any.clone(), local.clone()];
        assert_eq!(verdicts(&both, &[south, north]), [("a", true), ("b", true)]);
        assert_eq!(verdicts(&both, &[south]), [("a", true), ("b", false)]);
        assert_eq!(verdicts(&both, &[north]), [("a", false), ("b", true)]);
        assert_eq!(verdicts(&[local.clone(), local], &[south]), [("a", true), ("a", false)]);
        let cluster = expected("c", &[tcp("10.0.0.7", 6641), tcp("10.0.0.1", 6641)]);
        assert_eq!(verdicts(&[cluster], &[north]), [("c", true)]);
        let named = expected("d", &[tcp("ovn-nb.example", 6641)]);
        assert_eq!(verdicts(&[named], &[north]), [("d", true)]);
    }
}
