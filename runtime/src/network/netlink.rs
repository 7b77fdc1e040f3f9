//! rtnetlink(7): one socket, requests answered one after the other.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use super::{Address, DefaultRoute, Interface, Neighbor, NeighborState};
use crate::netlink::route::{Message, Request};

/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// A change while a table is dumped makes the dump inconsistent.
const ATTEMPTS: usize = 10;
/// The kernel's messages are at most this large.
const BUFFER: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error(
        "there is no network interface {name}; there are: {known}. Set --interface to the one that leads to the leaf switch"
    )]
    NoInterface { name: String, known: String },
    #[error("netlink, reading {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("netlink, reading {what}: the answer cannot be understood: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("netlink, reading {what}: it changed each of the {ATTEMPTS} times it was read; try again")]
    Unsteady { what: &'static str },
}

pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            // No protocol is protocol 0, which is NETLINK_ROUTE.
            let family = net::AddressFamily::NETLINK;
            let socket = net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
            net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
            Ok(socket)
        };
        let socket = open().map_err(|error: Errno| NetlinkError::Io {
            what: "anything",
            source: error.into(),
        })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// An interface with its addresses and default routes.
    pub fn interface(&mut self, name: &str) -> Result<Interface, NetlinkError> {
        let mut found = None;
        let asked = self.ask("the interface", Request::link(name), 0, |message| {
            if let Message::Link(link) = message {
                found = Some((link.index, link.up));
            }
        });
        match (asked, found) {
            (Ok(()), Some((index, up))) => Ok(Interface {
                name: name.into(),
                index,
                up,
                addresses: self.addresses(index)?,
                default_routes: self.default_routes(index)?,
            }),
            (Err(NetlinkError::Io { source, .. }), _) if is_no_interface(&source) => Err(NetlinkError::NoInterface {
                name: name.into(),
                known: self.names()?.join(", "),
            }),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(NetlinkError::Malformed {
                what: "the interface",
                reason: "it is none".into(),
            }),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, NetlinkError> {
        self.dump("the interfaces", Request::links(), |message| match message {
            Message::Link(link) => Some(link.name),
            _ => None,
        })
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        self.dump("the addresses", Request::addresses(), |message| match message {
            Message::Address(address) if address.header.index == index => to_address(&address),
            _ => None,
        })
    }

    fn default_routes(&mut self, index: u32) -> Result<Vec<DefaultRoute>, NetlinkError> {
        let request = Request::routes(AddressFamily::Inet, None);
        let routes = self.dump("the routes", request, |message| match message {
            Message::Route(route) => Some(to_default_routes(&route, index)),
            _ => None,
        })?;
        Ok(routes.into_iter().flatten().collect())
    }

    /// The neighbour table of an interface.
    pub fn neighbors(&mut self, index: u32) -> Result<Vec<Neighbor>, NetlinkError> {
        self.dump("the neighbour table", Request::neighbors(), |message| match message {
            Message::Neighbor(neighbor) if neighbor.header.ifindex == index => to_neighbor(&neighbor),
            _ => None,
        })
    }

    /// Has the kernel ask a neighbour it knows whether it is still there, now and not after the usual delay. Takes CAP_NET_ADMIN.
    pub fn confirm(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = Request::probe_neighbor(index, address);
        self.ask("a neighbour's state", request, NLM_F_ACK | NLM_F_REPLACE, |_| ())
    }

    fn dump<T>(
        &mut self,
        what: &'static str,
        request: Message,
        mut keep: impl FnMut(Message) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let mut kept = Vec::new();
            match self.ask(what, request.clone(), NLM_F_DUMP, |message| kept.extend(keep(message))) {
                Err(NetlinkError::Unsteady { .. }) => (),
                result => return result.map(|()| kept),
            }
        }
        Err(NetlinkError::Unsteady { what })
    }

    /// Sends a request and hands out the messages of its answer.
    fn ask(
        &mut self,
        what: &'static str,
        request: Message,
        flags: u16,
        mut each: impl FnMut(Message),
    ) -> Result<(), NetlinkError> {
        let io = |error: Errno| NetlinkError::Io {
            what,
            source: error.into(),
        };
        let malformed = |reason: String| NetlinkError::Malformed { what, reason };
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        net::send(&self.socket, &bytes, SendFlags::empty()).map_err(io)?;

        let mut unsteady = false;
        let mut buffer = vec![0; BUFFER];
        loop {
            let received = rustix::io::retry_on_intr(|| net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()));
            let (_, length) = received.map_err(io)?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let one = NetlinkBuffer::new_checked(rest).map_err(|error| malformed(error.to_string()))?;
                let size = (one.length() as usize).next_multiple_of(4).min(rest.len());
                let (bytes, next) = rest.split_at(size);
                rest = next;
                if one.sequence_number() != self.sequence {
                    continue; // Of a request that was given up.
                }
                unsteady |= one.flags() & NLM_F_DUMP_INTR != 0;
                let parsed = NetlinkMessage::<Message>::deserialize(bytes);
                match parsed.map_err(|error| malformed(error.to_string()))?.payload {
                    NetlinkPayload::Done(_) if unsteady => return Err(NetlinkError::Unsteady { what }),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Io {
                            what,
                            source: error.to_io(),
                        });
                    }
                    NetlinkPayload::InnerMessage(message) => {
                        each(message);
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(());
                        }
                    }
                    _ => (),
                }
            }
        }
    }
}

/// There is none of that name, or none can have it.
fn is_no_interface(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NODEV, Errno::RANGE, Errno::INVAL]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn to_address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut remote = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => (),
        }
    }
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) && !flags.contains(AddressFlags::Optimistic)
    {
        return None;
    }
    Some(Address {
        // IPv6 has only the second, and on a point-to-point link the second is the other end's.
        net: IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?,
        secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

/// The default routes through the interface in a route, which may have several next hops.
fn to_default_routes(message: &RouteMessage, index: u32) -> Vec<DefaultRoute> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut hops = Vec::new();
    let mut single = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Oif(number) => single.0 = Some(*number),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => single.1 = Some(*address),
            RouteAttribute::MultiPath(next_hops) => {
                for hop in next_hops
                    .iter()
                    .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
                {
                    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
                        _ => None,
                    });
                    hops.push((Some(hop.interface_index), gateway));
                }
            }
            _ => (),
        }
    }
    let usable = header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && !header.flags.contains(RouteFlags::Dead);
    if !usable {
        return Vec::new();
    }
    hops.push(single);
    let ours = hops.into_iter().filter(|(interface, _)| *interface == Some(index));
    ours.map(|(_, gateway)| DefaultRoute { metric, gateway }).collect()
}

fn to_neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let state = match message.header.state {
        NeighbourState::Reachable => NeighborState::Reachable,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => NeighborState::Stale,
        NeighbourState::Permanent => NeighborState::Permanent,
        _ => NeighborState::Unknown,
    };
    Some(Neighbor { address, state })
}
