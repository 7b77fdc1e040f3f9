//! The kernel's network configuration as plain data: what discovery reads, and tests can write down.

mod netlink;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

pub use self::netlink::{Netlink, NetlinkError};

/// A network interface with what is configured on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub up: bool,
    /// In the kernel's order.
    pub addresses: Vec<Address>,
    /// Default routes of the main table that leave through it, IPv4.
    pub default_routes: Vec<DefaultRoute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself with its prefix length, as in `10.0.192.111/24`.
    pub net: IpNet,
    /// Added after another of the same subnet.
    pub secondary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub metric: u32,
    /// `None`: everything is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    pub address: IpAddr,
    pub state: NeighborState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborState {
    /// It answered a moment ago.
    Reachable,
    /// It answered once, and may have gone.
    Stale,
    /// Somebody wrote it down.
    Permanent,
    /// INCOMPLETE, FAILED, or without resolution: nobody is known to be there.
    Unknown,
}

impl Interface {
    /// The IPv4 addresses that can be a node's, best first. Link-local ones are not: the agent itself puts such on br-ex, to
    /// answer for others.
    pub fn ipv4(&self) -> Vec<Ipv4Net> {
        let usable = self.addresses.iter().filter_map(|address| match address.net {
            IpNet::V4(net) if !net.addr().is_link_local() && !net.addr().is_loopback() => {
                Some((address.secondary, net))
            }
            _ => None,
        });
        let mut nets: Vec<_> = usable.collect();
        // Stable: the kernel's order is kept. Addresses of their own are last: others than the node's are added like that.
        nets.sort_by_key(|(secondary, net)| (net.prefix_len() == 32, *secondary));
        nets.into_iter().map(|(_, net)| net).collect()
    }

    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// The subnet of the interface that an address is in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        let nets = self.addresses.iter().map(|own| own.net.trunc());
        nets.filter(|net| net.contains(&address)).max_by_key(IpNet::prefix_len)
    }
}
