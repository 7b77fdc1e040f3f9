//! rtnetlink messages -> the plain values of [`crate::network`].

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteHeader, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::{Address, DefaultRoute, Interface, Neighbor, NeighborState};
use crate::netlink::Socket;
use crate::netlink::route::{self, NextHop, Object, Route};

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error(
        "there is no network interface {name}; there are: {known}\nhelp: set --interface to the one that leads to the leaf switch"
    )]
    NoInterface { name: String, known: String },
    #[error("cannot read {what} through netlink: {source}")]
    Io { what: &'static str, source: io::Error },
}

/// Reads the network configuration of this network namespace.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open(NETLINK_ROUTE).map_err(failed("the network configuration"))?;
        Ok(Self { socket })
    }

    /// An interface with its addresses and default routes.
    pub fn interface(&mut self, name: &str) -> Result<Interface, NetlinkError> {
        match self.socket.get(&route::link(name)) {
            Ok(Some(link)) => Ok(Interface {
                name: name.into(),
                index: link.index,
                up: link.up,
                addresses: self.addresses(link.index)?,
                default_routes: self.default_routes(link.index)?,
            }),
            Err(source) if !is_unknown_interface(&source) => Err(failed("the interface")(source)),
            _ => Err(NetlinkError::NoInterface {
                name: name.into(),
                known: self.names()?.join(", "),
            }),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, NetlinkError> {
        self.socket
            .dump(&route::links(), |link| Some(link.name))
            .map_err(failed("the interfaces"))
    }

    /// The VRFs: name and routing table.
    pub fn vrfs(&mut self) -> Result<Vec<(String, u32)>, NetlinkError> {
        self.socket
            .dump(&route::links(), |link| Some((link.name, link.table?)))
            .map_err(failed("the VRFs"))
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, NetlinkError> {
        let found = self
            .socket
            .dump(&route::addresses(), |message| match message.header.index == index {
                true => to_address(&message),
                false => None,
            });
        found.map_err(failed("the addresses"))
    }

    fn default_routes(&mut self, index: u32) -> Result<Vec<DefaultRoute>, NetlinkError> {
        let request = route::routes(AddressFamily::Inet, None);
        let routes = self.socket.dump(&request, |route| is_default(&route).then_some(route));
        let mut found = Vec::new();
        for mut route in routes.map_err(failed("the routes"))? {
            if let (true, Some(id)) = (route.next_hops.is_empty(), route.object) {
                route.next_hops = self.next_hops(id).map_err(failed("a nexthop object"))?;
            }
            found.extend(to_default_routes(&route, index));
        }
        Ok(found)
    }

    /// The next hops of a nexthop object: its own, or those of a group's members.
    fn next_hops(&mut self, id: u32) -> io::Result<Vec<NextHop>> {
        let object = self.object(id)?;
        let mut found = Vec::from_iter(object.next_hop);
        for member in object.members {
            found.extend(self.object(member)?.next_hop);
        }
        Ok(found)
    }

    /// An object that was removed since the route was read has no next hop.
    fn object(&mut self, id: u32) -> io::Result<Object> {
        match self.socket.get(&route::object(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            reply => Ok(reply.ok().flatten().unwrap_or_default()),
        }
    }

    /// The neighbour table of an interface.
    pub fn neighbors(&mut self, index: u32) -> Result<Vec<Neighbor>, NetlinkError> {
        let found = self
            .socket
            .dump(&route::neighbors(), |message| match message.header.ifindex == index {
                true => to_neighbor(&message),
                false => None,
            });
        found.map_err(failed("the neighbour table"))
    }

    /// Makes the kernel check now, without the usual delay, whether a known neighbour is still there. Needs CAP_NET_ADMIN.
    pub fn confirm(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        self.socket
            .change(&route::probe_neighbor(index, address), NLM_F_REPLACE)
            .map_err(failed("the state of a neighbour"))
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError::Io { what, source }
}

/// No interface has this name, or the name is not valid.
fn is_unknown_interface(error: &io::Error) -> bool {
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
        // IPv6 has only IFA_ADDRESS. On a point-to-point link IFA_ADDRESS is the other end's address.
        net: IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?,
        secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

/// Whether packets may take this route as a default route of the main table.
fn is_default(route: &Route) -> bool {
    route.prefix_length == 0
        && route.kind == RouteType::Unicast
        && route.table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && !route.dead
}

/// The next hops through the interface.
fn to_default_routes(route: &Route, index: u32) -> impl Iterator<Item = DefaultRoute> {
    let hops = route.next_hops.iter().filter(move |hop| hop.interface == index);
    hops.map(|hop| DefaultRoute {
        metric: route.metric,
        gateway: hop.gateway,
    })
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
