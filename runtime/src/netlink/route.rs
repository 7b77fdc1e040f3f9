//! rtnetlink(7): what is asked here, and the answers as values.
//!
//! netlink-packet-route reads the answers, each by the type of its own. Its enumeration of every message there is would bring all of
//! them into the program, traffic control included, and so would its links: of those three attributes are read here.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator, Parseable, parse_string, parse_u32,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeader, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::rule::{RuleHeader, RuleMessage};

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
const RTA_TABLE: u16 = 15;

// linux/if_link.h, linux/neighbour.h
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VRF_TABLE: u16 = 1;
const NDA_DST: u16 = 1;

#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Link(Link),
    Address(AddressMessage),
    Route(RouteMessage),
    Neighbor(NeighbourMessage),
    Rule(RuleMessage),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub up: bool,
    pub name: String,
    /// Of a VRF.
    pub table: Option<u32>,
}

/// A message to the kernel: its header, and at most one attribute.
#[derive(Clone, Debug)]
pub struct Request {
    message_type: u16,
    body: Vec<u8>,
}

/// What routes are to have in common; the kernel obeys it where it is strict.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Interface(u32),
    Table(u32),
}

impl Request {
    fn message(message_type: u16, header: &impl Emitable, attribute: Option<(u16, Vec<u8>)>) -> Message {
        let mut body = emitted(header);
        if let Some((kind, value)) = attribute {
            body.extend(emitted(&DefaultNla::new(kind, value)));
        }
        Message::Request(Self { message_type, body })
    }

    pub fn links() -> Message {
        Self::message(RTM_GETLINK, &LinkHeader::default(), None)
    }

    pub fn link(name: &str) -> Message {
        let name = [name.as_bytes(), b"\0"].concat();
        Self::message(RTM_GETLINK, &LinkHeader::default(), Some((IFLA_IFNAME, name)))
    }

    pub fn addresses() -> Message {
        Self::message(RTM_GETADDR, &AddressHeader::default(), None)
    }

    pub fn neighbors() -> Message {
        Self::message(RTM_GETNEIGH, &NeighbourHeader::default(), None)
    }

    pub fn routes(address_family: AddressFamily, of: Option<Of>) -> Message {
        let header = RouteHeader {
            address_family,
            ..RouteHeader::default()
        };
        let attribute = of.map(|of| match of {
            Of::Interface(index) => (RTA_OIF, index.to_ne_bytes().to_vec()),
            Of::Table(id) => (RTA_TABLE, id.to_ne_bytes().to_vec()),
        });
        Self::message(RTM_GETROUTE, &header, attribute)
    }

    pub fn rules(family: AddressFamily) -> Message {
        let header = RuleHeader {
            family,
            ..RuleHeader::default()
        };
        Self::message(RTM_GETRULE, &header, None)
    }

    /// Has the neighbour go to NUD_PROBE.
    pub fn probe_neighbor(index: u32, address: IpAddr) -> Message {
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
        Self::message(RTM_NEWNEIGH, &header, Some((NDA_DST, bytes)))
    }
}

fn emitted(part: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; part.buffer_len()];
    part.emit(&mut bytes);
    bytes
}

impl Link {
    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        let mut link = Self {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in NlasIterator::new(&payload[header.buffer_len()..]) {
            let attribute = attribute.context("a link's attributes")?;
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
            // The kind comes before its data.
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

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type,
            Self::Link(_) => RTM_NEWLINK,
            Self::Address(_) => RTM_NEWADDR,
            Self::Route(_) => RTM_NEWROUTE,
            Self::Neighbor(_) => RTM_NEWNEIGH,
            Self::Rule(_) => RTM_NEWRULE,
        }
    }

    /// Nobody sends what is an answer.
    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.body.len(),
            _ => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            buffer[..request.body.len()].copy_from_slice(&request.body);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            RTM_NEWLINK => Link::parse(payload).map(Self::Link),
            RTM_NEWADDR => AddressMessage::parse(payload).map(Self::Address),
            RTM_NEWROUTE => RouteMessage::parse(payload).map(Self::Route),
            RTM_NEWNEIGH => NeighbourMessage::parse(payload).map(Self::Neighbor),
            RTM_NEWRULE => RuleMessage::parse(payload).map(Self::Rule),
            other => Err(DecodeError::from(format!(
                "a message of type {other} is none that was asked for"
            ))),
        }
    }
}
