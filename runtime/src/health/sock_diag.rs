//! sock_diag(7): the requests for established sockets, and the fields that are read from the replies.
//!
//! The crate netlink-packet-sock-diag needs a later Rust than the image is built with (1.85).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};

use crate::netlink::{Message, Request};

/// The message type of requests and replies.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// One bit per state. TCP_ESTABLISHED is 1, also for UNIX sockets.
const ESTABLISHED: u32 = 1 << 1;

/// UDIAG_SHOW_VFS and UDIAG_SHOW_PEER.
const SHOW_FILE_AND_PEER: u32 = 0x2 | 0x4;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;

/// `struct unix_diag_msg`, `struct inet_diag_msg`.
const UNIX_MESSAGE: usize = 16;
const INET_MESSAGE: usize = 72;

/// An established UNIX socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// SOCK_STREAM, SOCK_DGRAM…
    pub kind: u8,
    pub inode: u32,
    /// The inode of the socket it is connected to.
    pub peer: Option<u32>,
    /// The inode of the file it is bound to.
    pub file: Option<u32>,
}

/// An established TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    pub inode: u32,
    pub remote: SocketAddr,
}

/// `struct unix_diag_req`: family, protocol, padding, states, inode, attributes to return, cookie.
pub fn unix_sockets() -> Request<UnixSocket> {
    let mut body = vec![AF_UNIX, 0, 0, 0];
    for word in [ESTABLISHED, 0, SHOW_FILE_AND_PEER, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    Request::new(SOCK_DIAG_BY_FAMILY, body)
}

pub fn tcp4_sockets() -> Request<TcpSocket> {
    tcp_sockets(AF_INET)
}

pub fn tcp6_sockets() -> Request<TcpSocket> {
    tcp_sockets(AF_INET6)
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and the identity of a socket (any).
fn tcp_sockets(family: u8) -> Request<TcpSocket> {
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    body.extend(ESTABLISHED.to_ne_bytes());
    body.extend([0; 40]);
    body.extend([0xff; 8]);
    Request::new(SOCK_DIAG_BY_FAMILY, body)
}

impl Message for UnixSocket {
    const TYPE: u16 = SOCK_DIAG_BY_FAMILY;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let (header, attributes) = payload
            .split_first_chunk::<UNIX_MESSAGE>()
            .filter(|(header, _)| header[0] == AF_UNIX)
            .ok_or("not a UNIX socket")?;
        let (mut peer, mut file) = (None, None);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                // struct unix_diag_vfs: inode, device
                UNIX_DIAG_VFS => file = Some(word(attribute.value(), 0)?),
                UNIX_DIAG_PEER => peer = Some(parse_u32(attribute.value())?),
                _ => {}
            }
        }
        Ok(Self {
            kind: header[1],
            inode: word(header, 4)?,
            peer,
            file,
        })
    }
}

impl Message for TcpSocket {
    const TYPE: u16 = SOCK_DIAG_BY_FAMILY;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        // struct inet_diag_sockid from byte 4 on: ports, source, destination.
        let message = payload
            .first_chunk::<INET_MESSAGE>()
            .ok_or("a socket message is too short")?;
        let port = u16::from_be_bytes([message[6], message[7]]);
        let address = match message[0] {
            AF_INET => IpAddr::from(Ipv4Addr::from(chunk::<4>(message, 24)?)),
            AF_INET6 => IpAddr::from(Ipv6Addr::from(chunk::<16>(message, 24)?)),
            _ => return Err("not an IP socket".into()),
        };
        Ok(Self {
            inode: word(message, 68)?,
            remote: SocketAddr::new(address, port),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    chunk(bytes, at).map(u32::from_ne_bytes)
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DecodeError> {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    chunk.copied().ok_or_else(|| "a field is too short".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_have_the_size_that_the_kernel_expects() {
        assert_eq!(unix_sockets().body().len(), 24);
        assert_eq!(tcp4_sockets().body().len(), 56);
        assert_eq!(tcp6_sockets().body().len(), 56);
    }

    #[test]
    fn a_truncated_attribute_is_an_error() {
        let mut message = vec![AF_UNIX, 1, 1, 0];
        message.extend(7u32.to_ne_bytes());
        message.extend([0; 8]);
        let whole = |length: u16| {
            let mut message = message.clone();
            message.extend(length.to_ne_bytes());
            message.extend(UNIX_DIAG_PEER.to_ne_bytes());
            message.extend(9u32.to_ne_bytes());
            message
        };
        let socket = UnixSocket {
            kind: 1,
            inode: 7,
            peer: Some(9),
            file: None,
        };
        assert_eq!(UnixSocket::parse(&whole(8)).unwrap(), socket);
        for length in [0, 3, 4, 7, 9, u16::MAX] {
            assert!(UnixSocket::parse(&whole(length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_panics_or_hangs(payload in proptest::collection::vec(any::<u8>(), 0..120), family in 0u8..12) {
            let mut payload = payload;
            if let Some(first) = payload.first_mut() {
                *first = family;
            }
            let _ = UnixSocket::parse(&payload);
            let _ = TcpSocket::parse(&payload);
        }
    }
}
