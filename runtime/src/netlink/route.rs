//! rtnetlink(7): the requests of this program, and the attributes it reads from the replies.
//!
//! Links, routes and rules are parsed here: netlink-packet-route's types for them decode every attribute there is, which would
//! add some 40 kB to the program. Its types for addresses and neighbours are small.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NlasIterator, Parseable, parse_string, parse_u32,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeader, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteNextHopFlags, RouteScope, RouteType};
use netlink_packet_route::rule::RuleHeader;

use super::{Message, Request};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_NH_ID: u16 = 30;

// linux/nexthop.h
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nhmsg`: the flags are in its last four bytes.
const NHMSG: usize = 8;
/// `struct nexthop_grp`: it begins with the ID of a member.
const NEXTHOP_GRP: usize = 8;

// linux/if_link.h, linux/neighbour.h, linux/fib_rules.h
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VRF_TABLE: u16 = 1;
const NDA_DST: u16 = 1;
const FRA_TABLE: u16 = 15;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub up: bool,
    pub name: String,
    /// The routing table, if the link is a VRF.
    pub table: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub table: u32,
    pub metric: u32,
    pub prefix_length: u8,
    pub scope: RouteScope,
    pub kind: RouteType,
    pub dead: bool,
    /// Several for a multipath route. Dead ones are left out.
    pub next_hops: Vec<NextHop>,
    /// The nexthop object of the route. With net.ipv4.nexthop_compat_mode=0, only the object has the next hops.
    pub object: Option<u32>,
}

/// A nexthop object (ip-nexthop(8)): a next hop, or a group of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// `None` if it is dead, a blackhole or a group.
    pub next_hop: Option<NextHop>,
    /// The IDs of a group's members. The kernel does not nest groups.
    pub members: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub interface: u32,
    /// `None` for an on-link route, and for an IPv6 gateway.
    pub gateway: Option<Ipv4Addr>,
}

/// A policy routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub table: u32,
}

/// Selects routes. The kernel applies it on a strict socket only.
#[derive(Clone, Copy, Debug)]
pub enum RouteFilter {
    Interface(u32),
    Table(u32),
}

pub fn links() -> Request<Link> {
    request(RTM_GETLINK, &LinkHeader::default(), None)
}

pub fn link(name: &str) -> Request<Link> {
    let name = [name.as_bytes(), b"\0"].concat();
    request(RTM_GETLINK, &LinkHeader::default(), Some((IFLA_IFNAME, name)))
}

pub fn addresses() -> Request<AddressMessage> {
    request(RTM_GETADDR, &AddressHeader::default(), None)
}

pub fn neighbors() -> Request<NeighbourMessage> {
    request(RTM_GETNEIGH, &NeighbourHeader::default(), None)
}

pub fn routes(address_family: AddressFamily, filter: Option<RouteFilter>) -> Request<Route> {
    let header = RouteHeader {
        address_family,
        ..RouteHeader::default()
    };
    let attribute = filter.map(|filter| match filter {
        RouteFilter::Interface(index) => (RTA_OIF, index.to_ne_bytes().to_vec()),
        RouteFilter::Table(id) => (RTA_TABLE, id.to_ne_bytes().to_vec()),
    });
    request(RTM_GETROUTE, &header, attribute)
}

pub fn object(id: u32) -> Request<Object> {
    let mut body = vec![0; NHMSG];
    body.extend(emit(&DefaultNla::new(NHA_ID, id.to_ne_bytes().to_vec())));
    Request::new(RTM_GETNEXTHOP, body)
}

pub fn rules(family: AddressFamily) -> Request<Rule> {
    let header = RuleHeader {
        family,
        ..RuleHeader::default()
    };
    request(RTM_GETRULE, &header, None)
}

/// Moves a neighbour entry to NUD_PROBE: the kernel asks the neighbour whether it is still there.
pub fn probe_neighbor(index: u32, address: IpAddr) -> Request<NeighbourMessage> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::Inet6, address.octets().to_vec()),
    };
    let header = NeighbourHeader {
        family,
        ifindex: index,
        state: NeighbourState::Probe,
        ..NeighbourHeader::default()
    };
    request(RTM_NEWNEIGH, &header, Some((NDA_DST, bytes)))
}

fn request<M>(message_type: u16, header: &impl Emitable, attribute: Option<(u16, Vec<u8>)>) -> Request<M> {
    let mut body = emit(header);
    if let Some((kind, value)) = attribute {
        body.extend(emit(&DefaultNla::new(kind, value)));
    }
    Request::new(message_type, body)
}

fn emit(part: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; part.buffer_len()];
    part.emit(&mut bytes);
    bytes
}

impl Message for AddressMessage {
    const TYPE: u16 = RTM_NEWADDR;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        Parseable::parse(payload)
    }
}

impl Message for NeighbourMessage {
    const TYPE: u16 = RTM_NEWNEIGH;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        Parseable::parse(payload)
    }
}

impl Message for Link {
    const TYPE: u16 = RTM_NEWLINK;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        let mut link = Self {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in NlasIterator::new(&payload[header.buffer_len()..]) {
            let attribute = attribute.context("link attributes")?;
            match attribute.kind() {
                IFLA_IFNAME => link.name = parse_string(attribute.value())?,
                IFLA_LINKINFO => link.table = vrf_table(attribute.value())?,
                _ => (),
            }
        }
        Ok(link)
    }
}

fn vrf_table(info: &[u8]) -> Result<Option<u32>, DecodeError> {
    let mut is_vrf = false;
    let mut table = None;
    for attribute in NlasIterator::new(info) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_INFO_KIND => is_vrf = parse_string(attribute.value())? == "vrf",
            // The kernel sends the kind before its data.
            IFLA_INFO_DATA if is_vrf => {
                for datum in NlasIterator::new(attribute.value()) {
                    let datum = datum?;
                    if datum.kind() == IFLA_VRF_TABLE {
                        table = Some(parse_u32(datum.value())?);
                    }
                }
            }
            _ => (),
        }
    }
    Ok(table)
}

impl Message for Route {
    const TYPE: u16 = RTM_NEWROUTE;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let header = RouteHeader::parse(payload)?;
        let mut route = Self {
            table: header.table.into(),
            metric: 0,
            prefix_length: header.destination_prefix_length,
            scope: header.scope,
            kind: header.kind,
            dead: header.flags.contains(RouteFlags::Dead),
            next_hops: Vec::new(),
            object: None,
        };
        let (mut interface, mut gateway) = (None, None);
        for attribute in NlasIterator::new(&payload[header.buffer_len()..]) {
            let attribute = attribute.context("route attributes")?;
            let value = attribute.value();
            match attribute.kind() {
                RTA_TABLE => route.table = parse_u32(value)?,
                RTA_PRIORITY => route.metric = parse_u32(value)?,
                RTA_OIF => interface = Some(parse_u32(value)?),
                RTA_GATEWAY => gateway = ipv4(value),
                RTA_MULTIPATH => route.next_hops = next_hops(value)?,
                RTA_NH_ID => route.object = Some(parse_u32(value)?),
                _ => (),
            }
        }
        route
            .next_hops
            .extend(interface.map(|interface| NextHop { interface, gateway }));
        Ok(route)
    }
}

impl Message for Object {
    const TYPE: u16 = RTM_NEWNEXTHOP;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let (header, attributes) = payload.split_first_chunk::<NHMSG>().ok_or("a nexthop is too short")?;
        let flags = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let (mut interface, mut gateway, mut members) = (None, None, Vec::new());
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NHA_OIF => interface = Some(parse_u32(value)?),
                NHA_GATEWAY => gateway = ipv4(value),
                NHA_GROUP => {
                    let entries = value.chunks_exact(NEXTHOP_GRP);
                    members.extend(entries.map(|e| u32::from_ne_bytes([e[0], e[1], e[2], e[3]])));
                }
                _ => (),
            }
        }
        let dead = flags & u32::from(RouteNextHopFlags::Dead.bits()) != 0;
        let next_hop = interface
            .filter(|_| !dead)
            .map(|interface| NextHop { interface, gateway });
        Ok(Self { next_hop, members })
    }
}

/// `struct rtnexthop`, each followed by its attributes.
fn next_hops(mut bytes: &[u8]) -> Result<Vec<NextHop>, DecodeError> {
    const HEADER: usize = 8;
    let mut hops = Vec::new();
    while let Some(&[a, b, flags, _, i, j, k, l]) = bytes.first_chunk::<HEADER>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let attributes = bytes.get(HEADER..length).ok_or("a next hop is too short")?;
        let mut gateway = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.context("next hop attributes")?;
            if attribute.kind() == RTA_GATEWAY {
                gateway = ipv4(attribute.value());
            }
        }
        if !RouteNextHopFlags::from_bits_retain(flags).contains(RouteNextHopFlags::Dead) {
            let interface = u32::from_ne_bytes([i, j, k, l]);
            hops.push(NextHop { interface, gateway });
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(hops)
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

impl Message for Rule {
    const TYPE: u16 = RTM_NEWRULE;

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        // struct fib_rule_hdr: 12 bytes, the table in the fifth.
        let (header, attributes) = payload.split_first_chunk::<12>().ok_or("a rule is too short")?;
        let mut rule = Self {
            table: header[4].into(),
        };
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.context("rule attributes")?;
            if attribute.kind() == FRA_TABLE {
                rule.table = parse_u32(attribute.value())?;
            }
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        emit(&DefaultNla::new(kind, value.to_vec()))
    }

    fn next_hop(flags: u8, interface: u32, attributes: &[u8]) -> Vec<u8> {
        let length = 8 + attributes.len() as u16;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([flags, 0]);
        bytes.extend(interface.to_ne_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn a_route_has_its_metric_table_and_next_hop() {
        let header = RouteHeader {
            table: 254,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        let mut payload = emit(&header);
        payload.extend(attribute(RTA_TABLE, &1000u32.to_ne_bytes()));
        payload.extend(attribute(RTA_PRIORITY, &100u32.to_ne_bytes()));
        payload.extend(attribute(RTA_OIF, &7u32.to_ne_bytes()));
        payload.extend(attribute(RTA_GATEWAY, &[10, 0, 0, 1]));
        let route = Route::parse(&payload).unwrap();
        assert_eq!((route.table, route.metric, route.prefix_length), (1000, 100, 0));
        let hop = NextHop {
            interface: 7,
            gateway: Some([10, 0, 0, 1].into()),
        };
        assert_eq!(route.next_hops, [hop]);
        assert!(!route.dead);
    }

    #[test]
    fn dead_next_hops_of_a_multipath_route_are_left_out() {
        let gateway = attribute(RTA_GATEWAY, &[10, 0, 0, 1]);
        let hops = [
            next_hop(0, 7, &gateway),
            next_hop(RouteNextHopFlags::Dead.bits(), 8, &gateway),
            next_hop(0, 9, &[]),
        ];
        let mut payload = emit(&RouteHeader::default());
        payload.extend(attribute(RTA_MULTIPATH, &hops.concat()));
        let found = Route::parse(&payload).unwrap().next_hops;
        let hop = |interface, gateway| NextHop { interface, gateway };
        assert_eq!(found, [hop(7, Some([10, 0, 0, 1].into())), hop(9, None)]);
    }

    #[test]
    fn a_nexthop_object_is_a_next_hop_or_a_group() {
        let gateway = attribute(NHA_GATEWAY, &[10, 0, 0, 1]);
        let one = |flags: u32| {
            let header = [&[2, 0, 0, 0][..], &flags.to_ne_bytes()].concat();
            [header, attribute(NHA_OIF, &7u32.to_ne_bytes()), gateway.clone()].concat()
        };
        let hop = NextHop {
            interface: 7,
            gateway: Some([10, 0, 0, 1].into()),
        };
        assert_eq!(Object::parse(&one(0)).unwrap().next_hop, Some(hop));
        let dead = u32::from(RouteNextHopFlags::Dead.bits());
        assert_eq!(Object::parse(&one(dead)).unwrap().next_hop, None);
        let member = |id: u32| [&id.to_ne_bytes()[..], &[1, 0, 0, 0]].concat();
        let group = [vec![0; NHMSG], attribute(NHA_GROUP, &[member(3), member(4)].concat())].concat();
        let group = Object::parse(&group).unwrap();
        assert_eq!((group.next_hop, group.members), (None, vec![3, 4]));
    }

    #[test]
    fn a_rule_has_the_table_of_its_attribute() {
        let mut payload = emit(&RuleHeader {
            table: 254,
            ..RuleHeader::default()
        });
        assert_eq!(Rule::parse(&payload).unwrap().table, 254);
        payload.extend(attribute(FRA_TABLE, &1000u32.to_ne_bytes()));
        assert_eq!(Rule::parse(&payload).unwrap().table, 1000);
    }

    proptest! {
        #[test]
        fn no_message_panics_or_hangs(payload in proptest::collection::vec(0u8..20, 0..120)) {
            let _ = Link::parse(&payload);
            let _ = Route::parse(&payload);
            let _ = Rule::parse(&payload);
            let _ = Object::parse(&payload);
            let _ = next_hops(&payload);
        }
    }
}
