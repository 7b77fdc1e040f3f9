//! A process's open sockets become the peers that it is connected to.
//!
//! /proc says which sockets the process has, the kernel (NETLINK_SOCK_DIAG, open to everybody) what each is connected to. A UNIX
//! socket's peer is known by the file that the server bound, so that it does not matter under which path each of them sees it. The
//! kernel tells about one network namespace only: the agent's container shares the host's, as Open vSwitch does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::sock_diag::SockDiag;
use crate::agent::options::{Expected, Remote};
use crate::netlink::dump;

/// SOCK_STREAM; the others are for logs.
const STREAM: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The file that a server listens on.
    Unix {
        inode: u32,
    },
    Tcp(SocketAddr),
}

/// The established stream connections of a process. It needs to be the caller's own, or the caller root.
pub fn peers(pid: u32) -> io::Result<Vec<Peer>> {
    let own = inodes(pid)?;
    let mut peers = Vec::new();

    let sockets = dump(
        NETLINK_SOCK_DIAG,
        SockDiag::UnixRequest,
        false,
        |message| match message {
            SockDiag::Unix {
                kind: STREAM,
                inode,
                peer,
                file,
            } => {
                let end = peer.filter(|_| own.contains(&inode));
                (end.is_some() || file.is_some()).then_some((inode, end, file))
            }
            _ => None,
        },
    )?;
    let files: BTreeMap<u32, u32> = sockets
        .iter()
        .filter_map(|(inode, _, file)| Some((*inode, (*file)?)))
        .collect();
    let ends = sockets.iter().filter_map(|(_, end, _)| *end);
    peers.extend(
        ends.filter_map(|end| files.get(&end))
            .map(|&inode| Peer::Unix { inode }),
    );

    for request in [SockDiag::Tcp4Request, SockDiag::Tcp6Request] {
        let connected = dump(NETLINK_SOCK_DIAG, request, false, |message| match message {
            SockDiag::Tcp { inode, remote } if own.contains(&inode) => {
                Some(Peer::Tcp(SocketAddr::new(remote.ip().to_canonical(), remote.port())))
            }
            _ => None,
        });
        match connected {
            Ok(connected) => peers.extend(connected),
            // A kernel without IPv6, or without the module: no such connections.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(peers)
}

/// The sockets that a process has open.
fn inodes(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile is not open.
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

/// Which of the expected connections there are. One whose remote the configuration does not tell is there when a connection is
/// left that is none of the others.
pub fn compare<'a>(expected: &'a [Expected], peers: &[Peer]) -> Vec<(&'a Expected, bool)> {
    let mut left: Vec<Peer> = peers.to_vec();
    let mut found = Vec::new();
    for one in expected.iter().filter(|one| !one.remotes.is_empty()) {
        let place = left
            .iter()
            .position(|peer| one.remotes.iter().any(|remote| matches(remote, *peer)));
        // Two options may name one server: each has a connection of its own.
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
        // The kernel tells the lower half of the number. Of another file system it could be, too, but that one would have to
        // be a socket that the agent is connected to.
        (Remote::Unix(path), Peer::Unix { inode }) => {
            std::fs::metadata(path).is_ok_and(|file| file.ino() as u32 == inode)
        }
        (Remote::Tcp { host, port }, Peer::Tcp(address)) => {
            // A name may have any address.
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

    fn expected(option: &'static str, remotes: &[Remote]) -> Expected {
        let remotes = remotes.to_vec();
        Expected { option, remotes }
    }

    fn tcp(host: &str, port: u16) -> Remote {
        let host = host.to_string();
        Remote::Tcp { host, port }
    }

    fn verdicts(expected: &[Expected], peers: &[Peer]) -> Vec<(&'static str, bool)> {
        compare(expected, peers)
            .iter()
            .map(|(one, connected)| (one.option, *connected))
            .collect()
    }

    #[test]
    fn the_kernel_tells_whom_this_process_is_connected_to() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("db.sock"), directory.path().join("renamed.sock"));
        let server = UnixListener::bind(&here).unwrap();
        let unix = expected("ovsdb_connection", &[Remote::Unix(there.clone())]);
        let ask = || peers(std::process::id()).unwrap();
        // Clients may see it under another path.
        std::fs::rename(&here, &there).unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &ask()),
            [("ovsdb_connection", false)]
        );
        let client = UnixStream::connect(&there).unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &ask()),
            [("ovsdb_connection", false)],
            "not accepted yet"
        );
        let _accepted = server.accept().unwrap();
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &ask()),
            [("ovsdb_connection", true)]
        );
        drop(client);
        assert_eq!(
            verdicts(std::slice::from_ref(&unix), &ask()),
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
                verdicts(remote, &ask()),
                [("ovn_nb_connection", false)],
                "a listener is not connected"
            );
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(verdicts(remote, &ask()), [("ovn_nb_connection", true)]);
            assert!(ask().contains(&Peer::Tcp(address)));
            drop(client);
        }
    }

    #[test]
    fn connections_are_counted_once() {
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
