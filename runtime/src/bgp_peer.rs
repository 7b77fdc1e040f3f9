//! A BGP peer as FRR's configuration names it: an address or an interface, with an ASN or `external`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::asn::{Asn, AsnError};
use crate::network::is_interface_name;

/// FRR's name of a neighbour, in its configuration, commands and output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    Address(IpAddr),
    /// BGP unnumbered: the only other router on a link, found by its IPv6 router advertisements.
    Interface(String),
}

impl PeerName {
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Interface(_) => None,
        }
    }

    pub fn is_interface(&self) -> bool {
        self.address().is_none()
    }

    /// Whether FRR means this peer by `name`. Addresses are compared as values.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::Address(address) => name.parse() == Ok(*address),
            Self::Interface(interface) => name == interface,
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Interface(interface) => formatter.write_str(interface),
        }
    }
}

impl Serialize for PeerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<IpAddr> for PeerName {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

/// Parses a comma-separated list of interfaces. An empty text is an empty list.
pub fn parse_interfaces(list: &str) -> Result<Vec<String>, String> {
    let mut interfaces: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
        // FRR would take the name for an address.
        if !is_interface_name(name) || name.parse::<IpAddr>().is_ok() {
            return Err(format!("{name:?} is not the name of an interface"));
        }
        if interfaces.iter().any(|other| other == name) {
            return Err(format!("{name} occurs twice"));
        }
        interfaces.push(name.to_string());
    }
    Ok(interfaces)
}

/// The argument of FRR's `remote-as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// Every ASN except this server's.
    External,
    Number(Asn),
}

impl FromStr for PeerAs {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Self, AsnError> {
        match text {
            "external" => Ok(Self::External),
            number => number.parse().map(Self::Number),
        }
    }
}

impl fmt::Display for PeerAs {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::External => formatter.write_str("external"),
            Self::Number(asn) => asn.fmt(formatter),
        }
    }
}

impl Serialize for PeerAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::External => serializer.serialize_str("external"),
            Self::Number(asn) => asn.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_an_interface() {
        let address = PeerName::from("fd00::1".parse::<IpAddr>().unwrap());
        assert!(address.is("fd00:0::1") && !address.is("fd00::2") && !address.is_interface());
        let interface = PeerName::Interface("eth1".into());
        assert!(interface.is("eth1") && !interface.is("eth10") && interface.is_interface());
    }

    #[test]
    fn interfaces_are_a_list_of_names() {
        assert_eq!(parse_interfaces("eth0, eth1.100").unwrap(), ["eth0", "eth1.100"]);
        assert_eq!(parse_interfaces(" ").unwrap(), [""; 0]);
        for (list, complaint) in [
            ("eth0,eth0", "eth0 occurs twice"),
            ("eth0,", "\"\" is not the name of an interface"),
            ("10.0.0.1", "\"10.0.0.1\" is not the name of an interface"),
            ("a b", "\"a b\" is not the name of an interface"),
        ] {
            assert_eq!(parse_interfaces(list).unwrap_err(), complaint);
        }
    }

    #[test]
    fn the_asn_is_a_number_or_external() {
        assert_eq!("external".parse(), Ok(PeerAs::External));
        assert_eq!("65001".parse(), Ok(PeerAs::Number(Asn::new(65001).unwrap())));
        for text in ["", "internal", "External", "0"] {
            assert!(text.parse::<PeerAs>().is_err(), "{text}");
        }
        let json = |asn: PeerAs| serde_json::to_string(&asn).unwrap();
        assert_eq!(json(PeerAs::External), "\"external\"");
        assert_eq!(json("65001".parse().unwrap()), "65001");
    }
}
