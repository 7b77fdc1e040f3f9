//! Host names in the OVSDB connections -> the same connections with addresses, as options of `node.conf`.
//!
//! The agent's Python library opens an IPv6 socket for everything that is not an IPv4 address, so a name with an IPv4
//! address ends in ECONNREFUSED at every attempt. A name is replaced by all its addresses, in the order of the
//! resolver (RFC 6724), each as a connection of its own: the library tries one after the other. Addresses without a
//! route are left out if others have one. TLS needs no name: the library checks the server's certificate against the
//! CA, and not the server's name.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::AgentError;
use super::deadline::Deadline;
use super::log;
use crate::agent_options::{Expected, Remote};

/// An option with addresses instead of names.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub section: &'static str,
    pub option: &'static str,
    pub value: String,
}

/// Resolves the names, and repeats that until the deadline while one of them has no address: the cluster's DNS may
/// start later.
pub fn resolve(expected: Vec<Expected>, deadline: &mut Deadline) -> Result<Vec<Resolved>, AgentError> {
    let mut resolved = Vec::new();
    for Expected {
        section,
        option,
        remotes,
    } in expected
    {
        if !remotes.iter().any(is_named) {
            continue;
        }
        // oslo.config prefers the variable to any file.
        let variable = format!("OS_{}__{}", section.to_uppercase(), option.to_uppercase());
        if std::env::var_os(&variable).is_some() {
            log(&format!("{option} comes from {variable}, whose names are not resolved"));
            continue;
        }
        let mut values = Vec::new();
        for remote in &remotes {
            values.extend(addresses(option, remote, deadline)?);
        }
        resolved.push(Resolved {
            section,
            option,
            value: values.join(","),
        });
    }
    Ok(resolved)
}

fn is_named(remote: &Remote) -> bool {
    matches!(remote, Remote::Tcp { host, .. } if host.parse::<IpAddr>().is_err())
}

/// One connection for each address of a remote.
fn addresses(option: &str, remote: &Remote, deadline: &mut Deadline) -> Result<Vec<String>, AgentError> {
    let Remote::Tcp { scheme, host, port } = remote else {
        return Ok(vec![remote.to_string()]);
    };
    if !is_named(remote) {
        return Ok(vec![remote.to_string()]);
    }
    let end = deadline.end();
    let found = deadline.wait_until("cannot resolve a name of an OVSDB connection", || {
        let found = look_up(host, *port, end.saturating_duration_since(Instant::now()));
        found.map_err(|why| format!("{option}: {host}: {why}"))
    })?;
    let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
    log(&format!("{option}: {host} is {}", shown.join(", ")));
    Ok(found.iter().map(|address| format!("{scheme}:{address}")).collect())
}

/// The addresses of a name. The resolver may take longer than the time limit; its thread then ends by itself.
fn look_up(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = host.to_string();
    std::thread::spawn(move || {
        // Fails after the time limit.
        let _ = sender.send((name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    });
    match receiver.recv_timeout(limit) {
        Ok(Ok(found)) => routed(found),
        // "failed to lookup address information: Name or service not known"
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the DNS servers do not answer".into()),
    }
}

fn routed(mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let has_route = |address: &SocketAddr| {
        let any = match address.ip() {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        };
        // Sends nothing.
        UdpSocket::bind(any).is_ok_and(|socket| socket.connect(address).is_ok())
    };
    if found.iter().any(has_route) {
        found.retain(has_route);
    }
    match found.is_empty() {
        true => Err("it has no address".into()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::agent_options::AgentOptions;

    fn resolved(text: &str) -> Result<Vec<Resolved>, String> {
        let options = AgentOptions::parse(text, Path::new("a.conf")).unwrap();
        let mut deadline = Deadline::new(Duration::from_millis(300));
        resolve(options.connections().unwrap(), &mut deadline).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_and_files_stay_unchanged() {
        let text = "[DEFAULT]\novsdb_connection = unix:/run/openvswitch/db.sock\nexposing_method = ovn\n\
                    [ovn]\novn_sb_connection = tcp:10.0.0.1:6642,ssl:[fd00::1]:6642\n";
        assert_eq!(resolved(text), Ok(Vec::new()));
        assert_eq!(resolved("[ovn]\novn_sb_connection = tcp:$host:6642\n"), Ok(Vec::new()));
    }

    #[test]
    fn names_are_replaced_in_lists() {
        let text = "[ovn]\novn_sb_connection = ssl:localhost:6642,tcp:[fd00::1]:6642,unix:/run/x\n";
        let found = resolved(text).unwrap();
        let [Resolved { section, option, value }] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((*section, *option), ("ovn", "ovn_sb_connection"));
        let first = value.strip_suffix(",tcp:[fd00::1]:6642,unix:/run/x").unwrap();
        assert!(
            [
                "ssl:127.0.0.1:6642",
                "ssl:[::1]:6642",
                "ssl:[::1]:6642,ssl:127.0.0.1:6642",
                "ssl:127.0.0.1:6642,ssl:[::1]:6642"
            ]
            .contains(&first),
            "{value}"
        );
    }

    #[test]
    fn a_name_without_an_address_is_an_error_at_the_deadline() {
        let begin = Instant::now();
        let error = resolved("[DEFAULT]\novsdb_connection = tcp:name.invalid:6640\n").unwrap_err();
        let expected = "cannot resolve a name of an OVSDB connection after 0 s: ovsdb_connection: name.invalid: ";
        assert!(error.starts_with(expected), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }

    #[test]
    fn addresses_without_a_route_are_left_out_if_others_have_one() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        // Without SO_BROADCAST the kernel refuses a broadcast address like one without a route.
        let (local, broadcast) = (address("127.0.0.1:1"), address("255.255.255.255:1"));
        assert_eq!(routed(vec![broadcast, local]), Ok(vec![local]));
        assert_eq!(routed(vec![broadcast]), Ok(vec![broadcast]));
        assert!(routed(Vec::new()).is_err());
    }
}
