//! `bgp-config.env`, which frr-init writes -> the node's addresses, ASN and peers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::asn::{Asn, AsnError};
use crate::bgp_peer::{PeerName, parse_interfaces};
use crate::network::is_interface_name;
use crate::{env_file, files};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub address: IpAddr,
    pub interface: String,
    pub asn: Asn,
    pub router_id: Ipv4Addr,
    /// The leaf switches: one, or several with ECMP.
    pub peers: Vec<PeerName>,
    /// Whether the leaf switches may have every ASN except this node's.
    pub external_peers: bool,
    /// The route reflector or spine for EVPN.
    pub evpn_peer: Option<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error("{}: {problem} (delete the file and restart the pod: frr-init writes it again)", path.display())]
    Invalid { path: PathBuf, problem: String },
    #[error("{} line {line}: {problem} (delete the file and restart the pod: frr-init writes it again)", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        problem: String,
    },
}

impl Node {
    pub fn load(path: &Path) -> Result<Self, NodeError> {
        Self::parse(&files::read_text(path)?, path)
    }

    pub fn parse(text: &str, path: &Path) -> Result<Self, NodeError> {
        let path = || path.to_path_buf();
        let invalid = |problem| NodeError::Invalid { path: path(), problem };
        let values = env_file::parse(text).map_err(|(line, problem)| NodeError::Syntax {
            path: path(),
            line,
            problem,
        })?;
        let optional = |name: &str| values.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let required = |name: &str| optional(name).ok_or_else(|| invalid(format!("{name} is missing")));
        let bad = |name: &str, why: String| invalid(format!("{name}: {why}"));

        let address = |name: &str, value: &str| {
            value
                .parse::<IpAddr>()
                .map_err(|_| bad(name, format!("{value:?} is not an IP address")))
        };
        let name = required("NODE_NAME")?.to_string();
        let interface = required("INTERFACE")?;
        if !is_interface_name(interface) {
            return Err(bad("INTERFACE", format!("{interface:?} is not an interface name")));
        }
        let router_id = required("BGP_ROUTER_ID")?;
        let asn = required("BGP_AS")?;
        let interfaces = parse_interfaces(optional("BGP_PEER_INTERFACE").unwrap_or_default())
            .map_err(|why| bad("BGP_PEER_INTERFACE", why))?;
        let addresses = match interfaces.is_empty() {
            true => required("BGP_PEER_IP")?,
            false => optional("BGP_PEER_IP").unwrap_or_default(),
        };
        let addresses = addresses.split([',', ' ']).filter(|peer| !peer.is_empty());
        let addresses = addresses.map(|peer| address("BGP_PEER_IP", peer).map(PeerName::Address));
        let mut peers: Vec<PeerName> = addresses.collect::<Result<_, _>>()?;
        peers.extend(interfaces.into_iter().map(PeerName::Interface));
        Ok(Self {
            name,
            address: address("NODE_IP", required("NODE_IP")?)?,
            interface: interface.to_string(),
            asn: asn
                .parse()
                .map_err(|error: AsnError| bad("BGP_AS", error.to_string()))?,
            router_id: router_id
                .parse()
                .map_err(|_| bad("BGP_ROUTER_ID", format!("{router_id:?} is not an IPv4 address")))?,
            peers,
            external_peers: optional("BGP_PEER_AS").is_some_and(|asns| asns.starts_with("external")),
            evpn_peer: optional("EVPN_RR_IP")
                .map(|peer| address("EVPN_RR_IP", peer))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "NODE_NAME='worker1'\nNODE_IP='10.0.192.111'\nINTERFACE='br-ex'\nSUBNET='10.0.192.0/24'\n\
                        BGP_AS='4200049263'\nBGP_ROUTER_ID='10.0.192.111'\nBGP_PEER_IP='10.0.192.1'\nBGP_PEER_AS='65001'\n\
                        BGP_PEER_DISCOVERY='route'\n";

    fn parse(text: &str) -> Result<Node, String> {
        Node::parse(text, Path::new("x.env")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_of_frr_init_is_parsed() {
        let node = parse(FILE).unwrap();
        assert_eq!(
            (node.asn.number(), node.router_id.to_string()),
            (4200049263, "10.0.192.111".into())
        );
        assert_eq!(
            (node.name.as_str(), node.interface.as_str(), node.evpn_peer),
            ("worker1", "br-ex", None)
        );
        let two = FILE.replace("10.0.192.1'", "10.0.192.1,fd00::1'") + "EVPN_RR_IP='10.9.9.9'\nEVPN_RR_AS=''\n";
        let node = parse(&two).unwrap();
        assert_eq!(node.peers.len(), 2);
        assert_eq!(node.evpn_peer, Some("10.9.9.9".parse().unwrap()));
        assert!(!node.external_peers);
        let unnumbered = FILE.replace("10.0.192.1'", "'").replace("65001", "external,external");
        let node = parse(&(unnumbered + "BGP_PEER_INTERFACE='eth0,eth1'\n")).unwrap();
        assert!(node.external_peers);
        assert_eq!(
            node.peers,
            ["eth0", "eth1"].map(|name| PeerName::Interface(name.into()))
        );
    }

    #[test]
    fn any_other_text_is_an_error() {
        let replaced = |from: &str, to: &str| FILE.replacen(from, to, 1);
        for (text, complaint) in [
            (String::new(), "NODE_NAME is missing"),
            (
                FILE.trim_end().to_string(),
                "line 9: the value of BGP_PEER_DISCOVERY is not in single quotes",
            ),
            (
                replaced("'br-ex'", "br-ex"),
                "line 3: the value of INTERFACE is not in single quotes",
            ),
            (replaced("'br-ex'", "\"br-ex\""), "line 3: the value of INTERFACE"),
            (
                replaced("'br-ex'", "'br-ex'; rm -rf /"),
                "line 3: the value of INTERFACE",
            ),
            (replaced("'br-ex'", "$(id)"), "line 3: the value of INTERFACE"),
            (replaced("'br-ex'", "'br-ex"), "line 3: the value of INTERFACE"),
            (
                replaced("INTERFACE", "export INTERFACE"),
                "line 3: \"export INTERFACE\" is not a variable name",
            ),
            (
                replaced("INTERFACE", "# INTERFACE"),
                "line 3: \"# INTERFACE\" is not a variable name",
            ),
            (replaced("NODE_IP", "NODE_NAME"), "line 2: NODE_NAME occurs twice"),
            (format!("{FILE}\n"), "line 10: NAME='value' is expected"),
            (
                replaced("4200049263", "4294967295"),
                "BGP_AS: 4294967295 is not a usable ASN",
            ),
            (replaced("4200049263", ""), "BGP_AS is missing"),
            (replaced("10.0.192.1'", "'"), "BGP_PEER_IP is missing"),
            (
                format!("{FILE}BGP_PEER_INTERFACE='a b'\n"),
                "BGP_PEER_INTERFACE: \"a b\" is not the name of an interface",
            ),
            (
                replaced("='10.0.192.1'", "='leaf'"),
                "BGP_PEER_IP: \"leaf\" is not an IP address",
            ),
            (
                replaced("BGP_ROUTER_ID='10.0.192.111'", "BGP_ROUTER_ID='::1'"),
                "BGP_ROUTER_ID: \"::1\" is not an IPv4",
            ),
            (
                replaced("br-ex", "../x"),
                "INTERFACE: \"../x\" is not an interface name",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.contains(complaint) && error.contains("x.env"),
                "{error}\n{complaint}"
            );
        }
    }
}
