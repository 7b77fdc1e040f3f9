//! `bgp-config.env`, as frr-init writes it, becomes what the agent has to know about its node.
//!
//! The file is shell, but no shell reads it here: each line is NAME='value', with `'\''` for a quote in the value. Anything
//! else is an error, because then it is not frr-init's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::asn::Asn;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub address: IpAddr,
    pub interface: String,
    pub asn: Asn,
    pub router_id: Ipv4Addr,
    /// The leaves: one, or several with ECMP.
    pub peers: Vec<IpAddr>,
    /// The route reflector or spine for EVPN.
    pub evpn_peer: Option<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem} (is it frr-init's? delete it and start the pod again)", path.display(), at(*line))]
pub struct NodeError {
    path: PathBuf,
    /// 0 when the problem is not in a line.
    line: usize,
    problem: String,
}

fn at(line: usize) -> String {
    if line == 0 {
        String::new()
    } else {
        format!(" line {line}")
    }
}

impl Node {
    pub fn parse(text: &str, path: &Path) -> Result<Self, NodeError> {
        let failed = |line, problem| NodeError {
            path: path.to_path_buf(),
            line,
            problem,
        };
        let values = assignments(text).map_err(|(line, problem)| failed(line, problem))?;
        let optional = |name: &str| values.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let required = |name: &str| optional(name).ok_or_else(|| failed(0, format!("{name} is missing")));
        let bad = |name: &str, why: String| failed(0, format!("{name}: {why}"));

        let address = |name: &str, value: &str| {
            value
                .parse::<IpAddr>()
                .map_err(|_| bad(name, format!("{value:?} is no IP address")))
        };
        let name = required("NODE_NAME")?.to_string();
        let interface = required("INTERFACE")?;
        if !is_interface_name(interface) {
            return Err(bad("INTERFACE", format!("{interface:?} is no name of an interface")));
        }
        let router_id = required("BGP_ROUTER_ID")?;
        let asn = required("BGP_AS")?;
        let peers = required("BGP_PEER_IP")?
            .split([',', ' '])
            .filter(|peer| !peer.is_empty());
        Ok(Self {
            name,
            address: address("NODE_IP", required("NODE_IP")?)?,
            interface: interface.to_string(),
            asn: asn
                .parse()
                .map_err(|error: crate::asn::AsnError| bad("BGP_AS", error.to_string()))?,
            router_id: router_id
                .parse()
                .map_err(|_| bad("BGP_ROUTER_ID", format!("{router_id:?} is no IPv4 address")))?,
            peers: peers
                .map(|peer| address("BGP_PEER_IP", peer))
                .collect::<Result<_, _>>()?,
            evpn_peer: optional("EVPN_RR_IP")
                .map(|peer| address("EVPN_RR_IP", peer))
                .transpose()?,
        })
    }
}

/// As the kernel's dev_valid_name.
pub fn is_interface_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad)
}

/// Names and values; else the line and what is wrong there.
fn assignments(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut values = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let Some((name, after)) = rest.split_once('=') else {
            return Err((line, "an assignment is expected".into()));
        };
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
            return Err((
                line,
                format!("{:?} is no name of a variable", name.lines().next().unwrap_or_default()),
            ));
        }
        let Some((value, after)) = quoted(after) else {
            return Err((
                line,
                format!("the value of {name} is not in single quotes, and nothing else"),
            ));
        };
        if values.insert(name.to_string(), value).is_some() {
            return Err((line, format!("{name} is there twice")));
        }
        rest = after;
    }
    Ok(values)
}

/// The value at the beginning of a text and what comes after its line.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.strip_prefix('\'')?.split_once('\'')?;
        value += part;
        match after.strip_prefix(r"\'") {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after.strip_prefix('\n')?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "NODE_NAME='worker1'\nNODE_IP='10.0.192.111'\nINTERFACE='br-ex'\nSUBNET='10.0.192.0/24'\n\
                        BGP_AS='4200049263'\nBGP_ROUTER_ID='10.0.192.111'\nBGP_PEER_IP='10.0.192.1'\nBGP_PEER_AS='65001'\n\
                        BGP_PEER_DISCOVERY='route'\n";

    fn parse(text: &str) -> Result<Node, String> {
        Node::parse(text, Path::new("x.env")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_frr_init_writes_is_read() {
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
    }

    #[test]
    fn nothing_else_is() {
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
                "line 3: \"export INTERFACE\" is no name",
            ),
            (
                replaced("INTERFACE", "# INTERFACE"),
                "line 3: \"# INTERFACE\" is no name",
            ),
            (replaced("NODE_IP", "NODE_NAME"), "line 2: NODE_NAME is there twice"),
            (format!("{FILE}\n"), "line 10: an assignment is expected"),
            (replaced("4200049263", "4294967295"), "BGP_AS: 4294967295 is no ASN"),
            (replaced("4200049263", ""), "BGP_AS is missing"),
            (
                replaced("='10.0.192.1'", "='leaf'"),
                "BGP_PEER_IP: \"leaf\" is no IP address",
            ),
            (
                replaced("BGP_ROUTER_ID='10.0.192.111'", "BGP_ROUTER_ID='::1'"),
                "BGP_ROUTER_ID: \"::1\" is no IPv4",
            ),
            (
                replaced("br-ex", "../x"),
                "INTERFACE: \"../x\" is no name of an interface",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.contains(complaint) && error.contains("x.env"),
                "{error}\n{complaint}"
            );
        }
    }

    #[test]
    fn interface_names_are_the_kernels() {
        assert!(
            ["br-ex", "a", "eth0.100", "fifteen-letters"]
                .into_iter()
                .all(is_interface_name)
        );
        assert!(
            !["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-", "a\n"]
                .into_iter()
                .any(is_interface_name)
        );
    }

    proptest! {
        /// What the writer writes comes back, whatever it is.
        #[test]
        fn values_survive_quoting(value in r#"[ -~\n\t'"$`\\äß]{0,40}"#) {
            let text = crate::env_file::render([("A", value.clone()), ("B", "x".to_string())]);
            let values = assignments(&text).unwrap();
            prop_assert_eq!((&values["A"], values["B"].as_str()), (&value, "x"));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = assignments(&text);
        }
    }
}
