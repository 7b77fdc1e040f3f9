//! Dumps of the kernel's netlink tables, message by message.

use std::io::{self, ErrorKind};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Asks for a dump and hands over each message of it. With `strict` the kernel obeys the filters in the request
/// (NETLINK_GET_STRICT_CHK, Linux 4.20). A message that the parser does not understand is passed over.
pub fn dump<M>(protocol: isize, request: M, strict: bool, mut each: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    if strict {
        socket.set_netlink_get_strict_chk(true)?;
    }
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some(length) = rest.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize) {
            // The header has 16 bytes; messages are aligned to four.
            let Some(bytes) = rest.get(..length).filter(|_| length >= 16) else {
                return Err(io::Error::new(ErrorKind::InvalidData, "a netlink message is cut short"));
            };
            match NetlinkMessage::<M>::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::Done(_)) => return Ok(()),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                Ok(_) | Err(_) => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
