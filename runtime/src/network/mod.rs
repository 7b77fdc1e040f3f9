//! The kernel's network configuration as plain values, which tests can construct.

mod netlink;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

pub use self::netlink::{Netlink, NetlinkError};

/// A network interface with its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub up: bool,
    /// In the kernel's order.
    pub addresses: Vec<Address>,
    /// IPv4 default routes of the main table through this interface.
    pub default_routes: Vec<DefaultRoute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address with its prefix length, as in `10.0.192.111/24`.
    pub net: IpNet,
    /// Added after another address of the same subnet.
    pub secondary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub metric: u32,
    /// `None` for an on-link route.
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
    /// It answered recently.
    Reachable,
    /// It answered once and may have gone.
    Stale,
    /// Configured statically.
    Permanent,
    /// INCOMPLETE, FAILED or NOARP: nothing is known about the address.
    Unknown,
}

impl Interface {
    /// The IPv4 addresses that can be the node's own, best first. Link-local addresses are excluded: the agent adds one to br-ex to
    /// answer for other addresses.
    pub fn ipv4(&self) -> Vec<Ipv4Net> {
        let usable = self.addresses.iter().filter_map(|address| match address.net {
            IpNet::V4(net) if !net.addr().is_link_local() && !net.addr().is_loopback() => {
                Some((address.secondary, net))
            }
            _ => None,
        });
        let mut nets: Vec<_> = usable.collect();
        // The sort is stable and keeps the kernel's order. /32 addresses come last: they are usually not the node's.
        nets.sort_by_key(|(secondary, net)| (net.prefix_len() == 32, *secondary));
        nets.into_iter().map(|(_, net)| net).collect()
    }

    pub fn has_link_local(&self) -> bool {
        let is = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
        self.addresses.iter().any(|own| is(&own.net))
    }

    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// The subnet of the interface that contains an address.
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        let nets = self.addresses.iter().map(|own| own.net.trunc());
        nets.filter(|net| net.contains(&address)).max_by_key(IpNet::prefix_len)
    }
}

/// The rules of the kernel's dev_valid_name.
pub fn is_interface_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernels_rules() {
        for name in ["br-ex", "a", "eth0.100", "fifteen-letters"] {
            assert!(is_interface_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-", "a\n"] {
            assert!(!is_interface_name(name), "{name}");
        }
    }
}
