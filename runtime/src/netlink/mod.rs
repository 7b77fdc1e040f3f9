//! Dumps of the kernel's netlink tables, message by message.

pub mod route;

use std::io::{self, ErrorKind};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A change while a table is dumped makes the dump inconsistent.
const ATTEMPTS: usize = 10;

/// Asks for a dump and keeps what is wanted of each message. With `strict` the kernel obeys the filters in the request
/// (NETLINK_GET_STRICT_CHK, Linux 4.20). A message that the parser does not understand is passed over.
pub fn dump<M, T>(protocol: isize, request: M, strict: bool, mut keep: impl FnMut(M) -> Option<T>) -> io::Result<Vec<T>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    for _ in 0..ATTEMPTS {
        if let Some(kept) = dump_once(protocol, &bytes, strict, &mut keep)? {
            return Ok(kept);
        }
    }
    Err(io::Error::other(format!(
        "it changed each of the {ATTEMPTS} times it was read"
    )))
}

/// `None` when it changed meanwhile.
fn dump_once<M: NetlinkDeserializable, T>(
    protocol: isize,
    request: &[u8],
    strict: bool,
    keep: &mut impl FnMut(M) -> Option<T>,
) -> io::Result<Option<Vec<T>>> {
    // A socket for each: nothing of an earlier answer can be left in it.
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    if strict {
        socket.set_netlink_get_strict_chk(true)?;
    }
    socket.send(request, 0)?;
    let mut kept = Vec::new();
    let mut steady = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some(length) = rest
            .first_chunk::<4>()
            .map(|length| u32::from_ne_bytes(*length) as usize)
        {
            // The header has 16 bytes; messages are aligned to four.
            let Some(bytes) = rest.get(..length).filter(|_| length >= 16) else {
                return Err(io::Error::new(ErrorKind::InvalidData, "a netlink message is cut short"));
            };
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            let Ok(message) = NetlinkMessage::<M>::deserialize(bytes) else {
                continue;
            };
            steady &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(steady.then_some(kept)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => kept.extend(keep(message)),
                _ => {}
            }
        }
    }
}
