//! FRR's summary of BGP sessions -> the state of the node's required sessions, and why they are not established.

mod open;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::bgp_peer::PeerName;
use crate::node::Node;
use crate::vty::{Connection, VtyError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    pub peer: PeerName,
    pub role: Role,
    /// FRR's name of the state; `none` if FRR does not know the neighbour.
    pub state: String,
    /// Why the session was rejected, if FRR reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leaf,
    Evpn,
}

impl Session {
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }

    fn describe(&self) -> String {
        let problem = self
            .problem
            .as_ref()
            .map_or(String::new(), |problem| format!(" ({problem})"));
        format!("{} is {}{problem}", self.peer, self.state)
    }
}

/// Reads the sessions with the node's peers from FRR.
pub fn sessions(sockets: &Path, timeout: Duration, node: &Node) -> Result<Vec<Session>, String> {
    let mut connection = Connection::open(sockets, "bgpd", timeout).map_err(|error| error.to_string())?;
    let mut summary = || {
        connection.execute("enable")?;
        connection.execute("show bgp summary json")
    };
    let reply = summary().map_err(|error| error.to_string())?;
    if !reply.is_accepted() {
        return Err(format!("bgpd rejected \"show bgp summary\" (status {})", reply.status));
    }
    let summary: Value = match serde_json::from_str(&reply.text) {
        Ok(summary) => summary,
        Err(error) => return Err(format!("bgpd's summary is not JSON: {error}")),
    };
    let leaves = node.peers.iter().map(|peer| (peer.clone(), Role::Leaf));
    let evpn = node.evpn_peer.iter().map(|peer| (PeerName::Address(*peer), Role::Evpn));
    let mut session = |(peer, role)| {
        let state = state(&summary, &peer, role);
        // On an established session an earlier problem is irrelevant. Without a reply the state has to do.
        let problem = match state.as_str() {
            "Established" | "none" => None,
            _ => problem(&mut connection, &peer, node).ok().flatten(),
        };
        Session {
            peer,
            role,
            state,
            problem,
        }
    };
    Ok(leaves.chain(evpn).map(&mut session).collect())
}

/// Explains a last attempt that ended with "Bad Peer AS" (RFC 4271, section 6.2): the one mistake in the mapping that FRR detects.
fn problem(connection: &mut Connection, peer: &PeerName, node: &Node) -> Result<Option<String>, VtyError> {
    let reply = connection.execute(&format!("show bgp neighbors {peer} json"))?;
    let all: Value = serde_json::from_str(&reply.text).unwrap_or_default();
    let Some(neighbor) = all.get(peer.to_string()) else {
        return Ok(None);
    };
    let text = |name: &str| neighbor.get(name).and_then(Value::as_str).unwrap_or_default();
    if !text("lastNotificationReason").ends_with("Bad Peer AS") {
        return Ok(None);
    }
    if !text("lastResetDueTo").ends_with("send") {
        return Ok(Some(format!(
            "bad peer AS: the peer does not accept this server's AS {}",
            node.asn
        )));
    }
    let shown = connection.execute(&format!("show bgp neighbors {peer}"))?;
    let peer_as = match open::asn(&shown.text) {
        Some(asn) => format!("the peer has AS {asn}"),
        None => "the peer has another AS".to_string(),
    };
    // FRR shows the ASN of an earlier session for `remote-as external`.
    let configured = match node.external_peers && node.peers.contains(peer) {
        true => "external, any AS except this server's".to_string(),
        false => {
            let asn = neighbor.get("remoteAs").and_then(Value::as_u64).unwrap_or_default();
            format!("AS {asn}")
        }
    };
    Ok(Some(format!("bad peer AS: {peer_as}, configured is {configured}")))
}

/// FRR lists a neighbour under each of its activated address families, with the same state. For the EVPN peer only EVPN counts.
fn state(summary: &Value, peer: &PeerName, role: Role) -> String {
    let families = summary.as_object().into_iter().flatten();
    let families = families.filter(|(family, _)| role != Role::Evpn || family.as_str() == "l2VpnEvpn");
    let states = families.filter_map(|(_, family)| {
        let peers = family.get("peers")?.as_object()?;
        let (_, found) = peers.iter().find(|(name, _)| peer.is(name))?;
        found.get("state")?.as_str()
    });
    let mut states: Vec<&str> = states.collect();
    states.sort_by_key(|state| *state != "Established");
    states.first().copied().unwrap_or("none").to_string()
}

/// One established session with a leaf switch is enough: the others exist for the case that one is down.
pub fn check(sessions: &[Session]) -> Result<String, String> {
    let mut established = Vec::new();
    for role in [Role::Leaf, Role::Evpn] {
        let of_role = || sessions.iter().filter(|session| session.role == role);
        match of_role().find(|session| session.is_established()) {
            Some(session) => established.push(session.peer.to_string()),
            None if of_role().next().is_none() => {}
            None => {
                let states: Vec<String> = of_role().map(Session::describe).collect();
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
        let peer = match peer.parse() {
            Ok(address) => PeerName::Address(address),
            Err(_) => PeerName::Interface(peer.to_string()),
        };
        Session {
            state: state(&serde_json::from_str(summary).unwrap(), &peer, role),
            peer,
            role,
            problem: None,
        }
    }

    const SUMMARY: &str = r#"{
        "ipv4Unicast": {"routerId": "10.0.0.9", "peers": {
            "10.0.0.1": {"remoteAs": 65001, "state": "Established"},
            "10.0.0.2": {"remoteAs": 65001, "state": "Active"},
            "eth1": {"remoteAs": 65001, "state": "Established", "idType": "interface"},
            "10.9.9.9": {"state": "Established"}}},
        "ipv6Unicast": {"peers": {"fd00:0::1": {"state": "Idle (Admin)"}}},
        "l2VpnEvpn": {"peers": {"10.9.9.9": {"state": "Connect"}}}}"#;

    #[test]
    fn one_leaf_is_enough_and_the_evpn_peer_needs_evpn() {
        let leaf = of(SUMMARY, "10.0.0.1", Role::Leaf);
        let down = of(SUMMARY, "10.0.0.2", Role::Leaf);
        let evpn = of(SUMMARY, "10.9.9.9", Role::Evpn);
        assert_eq!((down.state.as_str(), evpn.state.as_str()), ("Active", "Connect"));
        assert_eq!(
            of(SUMMARY, "fd00::1", Role::Leaf).state,
            "Idle (Admin)",
            "addresses are compared as values"
        );
        assert_eq!(of(SUMMARY, "eth1", Role::Leaf).state, "Established");
        assert_eq!(of(SUMMARY, "eth10", Role::Leaf).state, "none");
        let checked = check(&[down.clone(), leaf.clone()]);
        assert_eq!(checked.unwrap(), "the BGP session with 10.0.0.1 is established");
        assert_eq!(
            check(&[leaf, evpn]).unwrap_err(),
            "no BGP session is established: 10.9.9.9 is Connect"
        );
        assert_eq!(
            check(std::slice::from_ref(&down)).unwrap_err(),
            "no BGP session is established: 10.0.0.2 is Active"
        );
        let refused = Session {
            problem: Some("bad peer AS".into()),
            ..down
        };
        assert_eq!(
            check(&[refused]).unwrap_err(),
            "no BGP session is established: 10.0.0.2 is Active (bad peer AS)"
        );
    }

    #[test]
    fn a_neighbour_that_frr_does_not_know_has_the_state_none() {
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
