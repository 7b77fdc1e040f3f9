//! `--peer-ip` and the network -> the leaf switches to peer with, and how each was found.
//!
//! Detection tries in this order: the gateway of the default route; the subnet's first or last address, if it answers; a neighbour
//! in the kernel's table; the subnet's first address, unconfirmed. It never returns the node itself, the network or
//! broadcast address, or an address outside the subnet, except a route's gateway, which may be outside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Serialize, Serializer};

use crate::network::{Interface, Neighbor, NeighborState};

/// The option `--peer-ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    #[default]
    Detection,
    First,
    Last,
    /// One leaf switch, or several with ECMP.
    Fixed(Vec<IpAddr>),
}

/// How a peer was found. Displayed in the report and in bgp-config.env.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    Route,
    ProbedFirst,
    ProbedLast,
    Neighbor,
    Fallback,
    First,
    Last,
    Fixed,
    /// The option `--peer-interface`.
    Interface,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPeer {
    pub address: IpAddr,
    pub discovery: Discovery,
    pub reachable: Reachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachable {
    Yes,
    No,
    /// No probe could be sent.
    Unknown,
}

/// Access to the network. Tests implement it without one.
pub trait NetworkProbe {
    /// Which targets answer, in their order. Returns when the first target or all have answered, or after the time limit of
    /// `purpose`.
    fn probe(&mut self, targets: &[IpAddr], purpose: Purpose) -> Vec<Reachable>;
    fn neighbors(&mut self) -> Vec<Neighbor>;
}

/// The purpose of a probe, which determines its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The answer determines the peer.
    Decision,
    /// The peer is known. The answer is for the report.
    Report,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error(
        "{0} leaves no other address for a leaf switch, and no default route on {1} has a gateway\nhelp: set --peer-ip to the address of the leaf switch"
    )]
    NoOtherAddress(Ipv4Net, String),
    #[error(
        "the {which} address of {subnet}, {address}, is this node's own\nhelp: set --peer-ip to the address of the leaf switch"
    )]
    OwnAddress {
        which: &'static str,
        subnet: Ipv4Net,
        address: Ipv4Addr,
    },
    #[error("--peer-ip {0} is this node's own address\nhelp: set --peer-ip to the address of the leaf switch")]
    OwnFixed(IpAddr),
}

/// Chooses the peers. `node` is the node's address with its prefix length. Remarks for the user are added to `notes`.
pub fn discover(
    choice: &Choice,
    node: Ipv4Net,
    interface: &Interface,
    network: &mut dyn NetworkProbe,
    notes: &mut Vec<String>,
) -> Result<Vec<FoundPeer>, PeerError> {
    let one = match choice {
        Choice::Fixed(addresses) => return fixed(addresses, interface, network),
        Choice::First => (end(node, interface, "first")?, Discovery::First),
        Choice::Last => (end(node, interface, "last")?, Discovery::Last),
        Choice::Detection => match gateway(interface, notes) {
            Some(gateway) => (gateway, Discovery::Route),
            None => return detect(node, interface, network, notes).map(|found| vec![found]),
        },
    };
    let (address, discovery) = (IpAddr::V4(one.0), one.1);
    let reachable = network.probe(&[address], Purpose::Report)[0];
    Ok(vec![FoundPeer {
        address,
        discovery,
        reachable,
    }])
}

fn fixed(
    addresses: &[IpAddr],
    interface: &Interface,
    network: &mut dyn NetworkProbe,
) -> Result<Vec<FoundPeer>, PeerError> {
    if let Some(own) = addresses.iter().find(|address| interface.has(**address)) {
        return Err(PeerError::OwnFixed(*own));
    }
    let probe = |address: &IpAddr| FoundPeer {
        address: *address,
        discovery: Discovery::Fixed,
        reachable: network.probe(&[*address], Purpose::Report)[0],
    };
    Ok(addresses.iter().map(probe).collect())
}

/// The gateway of the default route with the lowest metric. On-link default routes have no gateway.
fn gateway(interface: &Interface, notes: &mut Vec<String>) -> Option<Ipv4Addr> {
    let routes = interface.default_routes.iter();
    let mut gateways: Vec<_> = routes
        .filter_map(|route| Some((route.metric, route.gateway?)))
        .filter(|(_, gateway)| !gateway.is_unspecified() && !interface.has((*gateway).into()))
        .collect();
    // The kernel lists routes of equal metric in the order of their addition. Sorted by address, the result is always the same.
    gateways.sort_unstable();
    gateways.dedup();
    let (metric, gateway) = *gateways.first()?;
    let equal: Vec<_> = gateways.iter().skip(1).filter(|other| other.0 == metric).collect();
    if let Some((_, other)) = equal.first() {
        notes.push(format!(
            "default routes of the same metric lead to {gateway} and {other}; the lower address is used. \
             To peer with both, set --peer-ip {gateway},{other}"
        ));
    }
    Some(gateway)
}

/// The first and the last host address of the subnet. On a /31 they are its two addresses (RFC 3021).
fn ends(net: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    match net.prefix_len() {
        32 => None,
        31 => Some((first.into(), last.into())),
        _ => Some(((first + 1).into(), (last - 1).into())),
    }
}

/// The other host address, if the subnet has two.
fn other_of_two(net: Ipv4Net) -> Option<Ipv4Addr> {
    let (first, last) = ends(net)?;
    let two = u32::from(last) - u32::from(first) == 1;
    two.then_some(if net.addr() == first { last } else { first })
}

/// For `--peer-ip first` and `last`.
fn end(node: Ipv4Net, interface: &Interface, which: &'static str) -> Result<Ipv4Addr, PeerError> {
    let (first, last) = ends(node).ok_or_else(|| PeerError::NoOtherAddress(node, interface.name.clone()))?;
    if let Some(other) = other_of_two(node).filter(|_| node.prefix_len() == 31) {
        return Ok(other);
    }
    let address = if which == "first" { first } else { last };
    if interface.has(address.into()) {
        return Err(PeerError::OwnAddress {
            which,
            subnet: node.trunc(),
            address,
        });
    }
    Ok(address)
}

/// Detection without a gateway.
fn detect(
    node: Ipv4Net,
    interface: &Interface,
    network: &mut dyn NetworkProbe,
    notes: &mut Vec<String>,
) -> Result<FoundPeer, PeerError> {
    let (first, last) = ends(node).ok_or_else(|| PeerError::NoOtherAddress(node, interface.name.clone()))?;
    let candidates: Vec<(Ipv4Addr, Discovery)> = [(first, Discovery::ProbedFirst), (last, Discovery::ProbedLast)]
        .into_iter()
        .filter(|(address, _)| !interface.has((*address).into()))
        .collect();
    let targets: Vec<IpAddr> = candidates.iter().map(|(address, _)| (*address).into()).collect();
    let answers = match targets.as_slice() {
        [] => Vec::new(),
        targets => network.probe(targets, Purpose::Decision),
    };
    // If both answer, the first is used.
    for ((address, discovery), answer) in candidates.iter().zip(&answers) {
        if *answer == Reachable::Yes {
            return Ok(FoundPeer {
                address: (*address).into(),
                discovery: *discovery,
                reachable: Reachable::Yes,
            });
        }
    }
    if let Some(neighbor) = known_neighbor(node, interface, &targets, &network.neighbors(), notes) {
        return Ok(FoundPeer {
            address: neighbor.address,
            discovery: Discovery::Neighbor,
            reachable: match neighbor.state {
                NeighborState::Reachable => Reachable::Yes,
                _ => Reachable::No,
            },
        });
    }
    let address = match other_of_two(node) {
        Some(other) => other,
        None => first,
    };
    if interface.has(address.into()) {
        return Err(PeerError::OwnAddress {
            which: "first",
            subnet: node.trunc(),
            address,
        });
    }
    notes.push(format!(
        "no default route on {} has a gateway, and there is no answer from {}: {address} is a guess; if it is wrong, set --peer-ip",
        interface.name,
        targets.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" or ")
    ));
    let guessed = targets.iter().position(|target| *target == IpAddr::V4(address));
    Ok(FoundPeer {
        address: address.into(),
        discovery: Discovery::Fallback,
        reachable: guessed.map_or(Reachable::Unknown, |index| answers[index]),
    })
}

/// A candidate that the kernel knows, otherwise the only neighbour in the subnet. Several neighbours may all be servers.
fn known_neighbor(
    node: Ipv4Net,
    interface: &Interface,
    candidates: &[IpAddr],
    neighbors: &[Neighbor],
    notes: &mut Vec<String>,
) -> Option<Neighbor> {
    let mut known: Vec<Neighbor> = neighbors
        .iter()
        .copied()
        .filter(|neighbor| neighbor.state != NeighborState::Unknown)
        .filter(|neighbor| match neighbor.address {
            IpAddr::V4(address) => {
                let end = node.prefix_len() < 31 && (address == node.network() || address == node.broadcast());
                node.contains(&address) && !end && !interface.has(address.into())
            }
            IpAddr::V6(_) => false,
        })
        .collect();
    known.sort_unstable_by_key(|neighbor| neighbor.address);
    let candidate = candidates
        .iter()
        .find_map(|candidate| known.iter().find(|known| known.address == *candidate));
    match (candidate, known.as_slice()) {
        (Some(candidate), _) => Some(*candidate),
        (None, [only]) => Some(*only),
        (None, []) => None,
        (None, several) => {
            notes.push(format!(
                "cannot tell which of the {} neighbours on {} ({}, {}, …) is the leaf switch",
                several.len(),
                interface.name,
                several[0].address,
                several[1].address
            ));
            None
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "detection" => Ok(Self::Detection),
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            list => parse_addresses(list).map(Self::Fixed),
        }
    }
}

/// Parses a comma-separated list of addresses that a BGP session can use.
pub fn parse_addresses(list: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in list.split(',').map(str::trim) {
        let address: IpAddr = part
            .parse()
            .map_err(|_| format!("{part:?} is not detection, first, last or an IP address"))?;
        let why_not = match address {
            IpAddr::V4(v4) if v4.is_broadcast() => Some("is a broadcast address"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Some("is link-local, which is ambiguous without an interface")
            }
            _ if address.is_unspecified() => Some("is the unspecified address"),
            _ if address.is_loopback() => Some("is a loopback address"),
            _ if address.is_multicast() => Some("is a multicast address"),
            _ if addresses.contains(&address) => Some("occurs twice"),
            _ => None,
        };
        if let Some(why_not) = why_not {
            return Err(format!("{address} {why_not}"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

impl fmt::Display for Discovery {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Route => "route",
            Self::ProbedFirst => "detection:first",
            Self::ProbedLast => "detection:last",
            Self::Neighbor => "detection:neighbor",
            Self::Fallback => "detection:fallback",
            Self::First => "first",
            Self::Last => "last",
            Self::Fixed => "fixed",
            Self::Interface => "interface",
        })
    }
}

impl Serialize for Discovery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests;
