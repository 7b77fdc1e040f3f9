//! Netlink (netlink(7)): a typed request -> the messages of the kernel's reply.
//!
//! The one receive loop of the program. [`route`] has the requests and messages of rtnetlink, `health::sock_diag` those of
//! sock_diag. A timeout, an error code from the kernel and a message that cannot be parsed are an [`io::Error`].

pub mod route;

use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use netlink_sys::SocketAddr;
use rustix::net::{self, RecvFlags, SendFlags, sockopt};

/// The kernel replies at once. The timeout only guards against a kernel that does not.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A change during a dump makes the dump inconsistent; it is then repeated.
const ATTEMPTS: usize = 10;
/// The largest datagram that the kernel sends.
const BUFFER: usize = 64 << 10;
/// `NLMSG_MIN_TYPE`: lower types are control messages.
const FIRST_TYPE: u16 = 16;

/// A message of a reply.
pub trait Message: Sized {
    /// The type in the message's header.
    const TYPE: u16;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError>;
}

/// A request whose reply consists of messages of type `M`.
pub struct Request<M> {
    message_type: u16,
    body: Vec<u8>,
    reply: PhantomData<M>,
}

impl<M> Request<M> {
    pub fn new(message_type: u16, body: Vec<u8>) -> Self {
        Self {
            message_type,
            body,
            reply: PhantomData,
        }
    }

    #[cfg(test)]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Consumes a message: its type and its payload.
type Each<'a> = dyn FnMut(u16, &[u8]) -> Result<(), DecodeError> + 'a;

pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    skip_unparsed: bool,
}

impl Socket {
    /// Opens a socket for a protocol of `netlink_sys::protocols`. It receives messages from the kernel only.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
            skip_unparsed: false,
        })
    }

    /// Skips messages that cannot be parsed. By default they are an error.
    pub fn skip_unparsed(mut self) -> Self {
        self.skip_unparsed = true;
        self
    }

    /// Makes the kernel apply the filters in a request (NETLINK_GET_STRICT_CHK, Linux 4.20).
    pub fn strict(self) -> io::Result<Self> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// Requests a whole table and collects what `keep` returns for each message.
    pub fn dump<M: Message, T>(
        &mut self,
        request: &Request<M>,
        mut keep: impl FnMut(M) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut kept = Vec::new();
            if self.exchange(request, NLM_F_DUMP, |message| kept.extend(keep(message)))? {
                return Ok(kept);
            }
        }
        Err(io::Error::other(format!(
            "the table changed during each of {ATTEMPTS} reads; try again"
        )))
    }

    /// Requests one object. `None` if the reply has no message.
    pub fn get<M: Message>(&mut self, request: &Request<M>) -> io::Result<Option<M>> {
        let mut found = None;
        self.exchange(request, 0, |message| found = Some(message))?;
        Ok(found)
    }

    /// Requests a change and waits for the kernel's acknowledgement.
    pub fn change<M: Message>(&mut self, request: &Request<M>, flags: u16) -> io::Result<()> {
        self.exchange(request, flags | NLM_F_ACK, |_| ()).map(drop)
    }

    fn exchange<M: Message>(&mut self, request: &Request<M>, flags: u16, mut each: impl FnMut(M)) -> io::Result<bool> {
        let skip_unparsed = self.skip_unparsed;
        self.send(request.message_type, flags, &request.body)?;
        self.receive(flags, &mut |message_type, payload| {
            let message = match message_type == M::TYPE {
                true => M::parse(payload),
                false => Err(format!("unexpected message type {message_type}").into()),
            };
            match message {
                Ok(message) => each(message),
                Err(_) if skip_unparsed => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    fn send(&mut self, message_type: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        const HEADER: usize = 16;
        self.sequence += 1;
        let message = [
            &((HEADER + body.len()) as u32).to_ne_bytes()[..],
            &message_type.to_ne_bytes(),
            &(NLM_F_REQUEST | flags).to_ne_bytes(),
            &self.sequence.to_ne_bytes(),
            &0u32.to_ne_bytes(),
            body,
        ]
        .concat();
        net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Passes the messages of one reply to `each`. Returns `false` for a dump that is inconsistent.
    fn receive(&mut self, flags: u16, each: &mut Each<'_>) -> io::Result<bool> {
        let mut consistent = true;
        let mut buffer = vec![0; BUFFER];
        loop {
            let received = rustix::io::retry_on_intr(|| net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()));
            let (_, length) = received?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(unparsed)?;
                let size = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(size..).unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue; // It belongs to an earlier request that failed.
                }
                consistent &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => return error_code(message.payload()).map(|()| consistent),
                    ..FIRST_TYPE => {}
                    message_type => {
                        each(message_type, message.payload()).map_err(unparsed)?;
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(consistent);
                        }
                    }
                }
            }
        }
    }
}

/// `struct nlmsgerr` begins with a negative errno, or 0 as an acknowledgement.
fn error_code(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(unparsed(DecodeError::from("an error message is too short"))),
    }
}

fn unparsed(error: DecodeError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("cannot parse the reply: {error}"))
}
