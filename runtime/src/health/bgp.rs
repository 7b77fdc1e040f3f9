//! FRR's summary of BGP sessions becomes the state of those that the node has to have.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::agent::node::Node;
use crate::vty::Connection;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    pub peer: IpAddr,
    /// What the peer is to this node.
    pub role: Role,
    /// As FRR names it; `none` when FRR does not have the neighbour.
    pub state: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leaf,
    Evpn,
}

impl Session {
    fn is_established(&self) -> bool {
        self.state == "Established"
    }
}

/// Asks FRR for the sessions with the node's peers.
pub fn sessions(sockets: &Path, patience: Duration, node: &Node) -> Result<Vec<Session>, String> {
    let ask = || {
        let mut connection = Connection::open(sockets, "bgpd", patience)?;
        connection.ask("enable")?;
        connection.ask("show bgp summary json")
    };
    let reply = ask().map_err(|error| error.to_string())?;
    if !reply.is_accepted() {
        return Err(format!("bgpd refused to show its sessions (status {})", reply.status));
    }
    let summary: Value = match serde_json::from_str(&reply.text) {
        Ok(summary) => summary,
        Err(error) => return Err(format!("bgpd's summary is not JSON: {error}")),
    };
    let leaves = node.peers.iter().map(|peer| (*peer, Role::Leaf));
    let evpn = node.evpn_peer.iter().map(|peer| (*peer, Role::Evpn));
    let session = |(peer, role)| Session {
        peer,
        role,
        state: state(&summary, peer, role),
    };
    Ok(leaves.chain(evpn).map(session).collect())
}

/// A neighbour is under each address family that is activated for it, with the same state; the EVPN peer's is that of EVPN.
fn state(summary: &Value, peer: IpAddr, role: Role) -> String {
    let families = summary.as_object().into_iter().flatten();
    let families = families.filter(|(family, _)| role != Role::Evpn || family.as_str() == "l2VpnEvpn");
    let states = families.filter_map(|(_, family)| {
        let peers = family.get("peers")?.as_object()?;
        let (_, found) = peers.iter().find(|(address, _)| address.parse() == Ok(peer))?;
        found.get("state")?.as_str()
    });
    let mut states: Vec<&str> = states.collect();
    states.sort_by_key(|state| *state != "Established");
    states.first().copied().unwrap_or("none").to_string()
}

/// Of several leaves one is enough: the others are there for the case that one is down.
pub fn judge(sessions: &[Session]) -> Result<String, String> {
    let mut established = Vec::new();
    for role in [Role::Leaf, Role::Evpn] {
        let of_role = || sessions.iter().filter(|session| session.role == role);
        match of_role().find(|session| session.is_established()) {
            Some(session) => established.push(session.peer.to_string()),
            None if of_role().next().is_none() => {}
            None => {
                let states: Vec<String> = of_role().map(|one| format!("{} is {}", one.peer, one.state)).collect();
                return Err(format!("no BGP session is established: {}", states.join(", ")));
            }
        }
    }
    Ok(format!(
        "the BGP session with {} is established",
        established.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(summary: &str, peer: &str, role: Role) -> Session {
        let peer = peer.parse().unwrap();
        Session {
            peer,
            role,
            state: state(&serde_json::from_str(summary).unwrap(), peer, role),
        }
    }

    const SUMMARY: &str = r#"{
        "ipv4Unicast": {"routerId": "10.0.0.9", "peers": {
            "10.0.0.1": {"remoteAs": 65001, "state": "Established"},
            "10.0.0.2": {"remoteAs": 65001, "state": "Active"},
            "10.9.9.9": {"state": "Established"}}},
        "ipv6Unicast": {"peers": {"fd00:0::1": {"state": "Idle (Admin)"}}},
        "l2VpnEvpn": {"peers": {"10.9.9.9": {"state": "Connect"}}}}"#;

    #[test]
    fn one_leaf_is_enough_and_the_evpn_peer_is_for_evpn() {
        let leaf = of(SUMMARY, "10.0.0.1", Role::Leaf);
        let down = of(SUMMARY, "10.0.0.2", Role::Leaf);
        let evpn = of(SUMMARY, "10.9.9.9", Role::Evpn);
        assert_eq!((down.state.as_str(), evpn.state.as_str()), ("Active", "Connect"));
        assert_eq!(
            of(SUMMARY, "fd00::1", Role::Leaf).state,
            "Idle (Admin)",
            "addresses are compared, not their texts"
        );
        let judged = judge(&[down.clone(), leaf.clone()]);
        assert_eq!(judged.unwrap(), "the BGP session with 10.0.0.1 is established");
        assert_eq!(
            judge(&[leaf, evpn]).unwrap_err(),
            "no BGP session is established: 10.9.9.9 is Connect"
        );
        assert_eq!(
            judge(&[down]).unwrap_err(),
            "no BGP session is established: 10.0.0.2 is Active"
        );
    }

    #[test]
    fn what_frr_does_not_have_is_none() {
        for summary in [
            "{}",
            "[]",
            "null",
            r#"{"warning": "none"}"#,
            r#"{"ipv4Unicast": {"peers": []}}"#,
            SUMMARY,
        ] {
            assert_eq!(of(summary, "10.7.7.7", Role::Leaf).state, "none", "{summary}");
        }
    }
}
