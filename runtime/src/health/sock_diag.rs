//! NETLINK_SOCK_DIAG, sock_diag(7): a request for established sockets becomes the kernel's answers, as far as they are used here.
//!
//! The crate of that protocol needs a later Rust than the image is built with (1.85).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

/// The type of requests and answers alike.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// A bit for each state; TCP_ESTABLISHED is 1, for UNIX sockets too.
const ESTABLISHED: u32 = 1 << 1;

/// UDIAG_SHOW_VFS and UDIAG_SHOW_PEER.
const SHOW_FILE_AND_PEER: u32 = 0x2 | 0x4;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;

/// `struct unix_diag_msg`, `struct inet_diag_msg`.
const UNIX_MESSAGE: usize = 16;
const INET_MESSAGE: usize = 72;

/// A request for a dump, or one socket of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SockDiag {
    UnixRequest,
    Tcp4Request,
    Tcp6Request,
    Unix {
        /// SOCK_STREAM, SOCK_DGRAM…
        kind: u8,
        inode: u32,
        /// The inode of the socket that it is connected to.
        peer: Option<u32>,
        /// The inode of the file that it is bound to.
        file: Option<u32>,
    },
    Tcp {
        inode: u32,
        remote: SocketAddr,
    },
}

impl SockDiag {
    fn request(&self) -> Vec<u8> {
        match self {
            // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie
            Self::UnixRequest => {
                let mut request = vec![AF_UNIX, 0, 0, 0];
                for word in [ESTABLISHED, 0, SHOW_FILE_AND_PEER, u32::MAX, u32::MAX] {
                    request.extend(word.to_ne_bytes());
                }
                request
            }
            Self::Tcp4Request => inet_request(AF_INET),
            Self::Tcp6Request => inet_request(AF_INET6),
            Self::Unix { .. } | Self::Tcp { .. } => Vec::new(),
        }
    }
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and a socket's identity: any.
fn inet_request(family: u8) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(ESTABLISHED.to_ne_bytes());
    request.extend([0; 40]);
    request.extend([0xff; 8]);
    request
}

impl NetlinkSerializable for SockDiag {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.request().len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.request());
    }
}

impl NetlinkDeserializable for SockDiag {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        let known = header.message_type == SOCK_DIAG_BY_FAMILY;
        let socket = match payload.first() {
            Some(&AF_UNIX) if known => unix(payload),
            Some(&(AF_INET | AF_INET6)) if known => inet(payload),
            _ => None,
        };
        socket.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no socket that is known here"))
    }
}

fn unix(message: &[u8]) -> Option<SockDiag> {
    let (mut peer, mut file) = (None, None);
    let mut rest = message.get(UNIX_MESSAGE..)?;
    // struct nlattr: length with these four bytes, type; aligned to four
    while let Some(&[a, b, c, d]) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes([c, d]) {
            // struct unix_diag_vfs: inode, device
            UNIX_DIAG_VFS => file = Some(word(value, 0)?),
            UNIX_DIAG_PEER => peer = Some(word(value, 0)?),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(SockDiag::Unix {
        kind: *message.get(1)?,
        inode: word(message, 4)?,
        peer,
        file,
    })
}

fn inet(message: &[u8]) -> Option<SockDiag> {
    let message = message.get(..INET_MESSAGE)?;
    // struct inet_diag_sockid from the fourth byte on: ports, source, destination
    let port = u16::from_be_bytes(message.get(6..8)?.try_into().ok()?);
    let address = match message.first()? {
        &AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(24..28)?).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(message.get(24..40)?).ok()?)),
    };
    Some(SockDiag::Tcp {
        inode: word(message, 68)?,
        remote: SocketAddr::new(address, port),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(payload: &[u8]) -> io::Result<SockDiag> {
        let mut header = NetlinkHeader::default();
        header.message_type = SOCK_DIAG_BY_FAMILY;
        SockDiag::deserialize(&header, payload)
    }

    #[test]
    fn requests_have_the_kernels_sizes() {
        for (request, size) in [
            (SockDiag::UnixRequest, 24),
            (SockDiag::Tcp4Request, 56),
            (SockDiag::Tcp6Request, 56),
        ] {
            assert_eq!(request.buffer_len(), size, "{request:?}");
        }
    }

    #[test]
    fn an_attribute_that_ends_too_early_is_no_socket() {
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
        let socket = SockDiag::Unix {
            kind: 1,
            inode: 7,
            peer: Some(9),
            file: None,
        };
        assert_eq!(parse(&whole(8)).unwrap(), socket);
        for length in [0, 3, 4, 7, 9, u16::MAX] {
            assert!(parse(&whole(length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics_or_hangs(payload in proptest::collection::vec(any::<u8>(), 0..120), family in 0u8..12) {
            let mut payload = payload;
            if let Some(first) = payload.first_mut() {
                *first = family;
            }
            let _ = parse(&payload);
        }
    }
}
