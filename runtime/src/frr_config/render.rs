//! Sessions and options -> the filled-in templates of `templates/`. The same input gives the same bytes.

use std::net::{IpAddr, Ipv4Addr};

use askama::Template;

use super::{Bfd, ConfigError, Extras, GracefulRestart, Leaf, Leak, RouteReflector, Sessions};
use crate::asn::Asn;
use crate::bgp_peer::{PeerAs, PeerName};

/// Seconds between this server's attempts to connect if the leaf switch cannot connect to it.
const CONNECT_ALONE: u16 = 3;
const VTYSH_CONF: &str = include_str!("../../templates/vtysh.conf");

#[derive(Template)]
#[template(path = "daemons.j2", escape = "none")]
struct Daemons {
    bfd: bool,
    listen: bool,
    zebra_keep: Option<u16>,
}

#[derive(Template)]
#[template(path = "frr.conf.j2", escape = "none")]
struct FrrConf<'a> {
    asn: Asn,
    router_id: Ipv4Addr,
    leaves: &'a [Leaf],
    leaf_asns_may_differ: bool,
    families: Vec<Family<'a>>,
    evpn: Option<Evpn>,
    connect_retry: u16,
    bfd: bool,
    /// Other timers than FRR's defaults.
    bfd_timers: Option<Bfd>,
    graceful_restart: Option<GracefulRestart>,
    outbound_filter: bool,
    leak: Option<&'a Leak>,
    password: Option<&'a str>,
    extra: Option<&'a str>,
}

/// An address family and the leaf switches whose sessions carry it.
struct Family<'a> {
    name: &'static str,
    /// The keyword before `prefix-list`.
    keyword: &'static str,
    /// The name of the prefix list.
    filter: &'static str,
    hosts: &'static str,
    leaves: Vec<&'a PeerName>,
}

struct Evpn {
    address: IpAddr,
    asn: Asn,
    source: Option<Ipv4Addr>,
}

/// File names and contents. frr.conf comes last: once it exists, the others exist too.
pub(super) fn render(sessions: &Sessions, extras: &Extras) -> Result<[(&'static str, String); 3], ConfigError> {
    let leaves = &sessions.leaves;
    let frr_conf = FrrConf {
        asn: sessions.asn,
        router_id: sessions.router_id,
        leaves,
        leaf_asns_may_differ: leaves
            .windows(2)
            .any(|pair| pair[0].asn != pair[1].asn || pair[0].asn == PeerAs::External),
        families: families(leaves, extras.ipv6, extras.leak.is_some()),
        evpn: extras.reflector.map(|RouteReflector { address, asn }| Evpn {
            address,
            asn,
            // The router ID is this server's IPv4 address. For an IPv6 session the kernel chooses the source.
            source: address.is_ipv4().then_some(sessions.router_id),
        }),
        connect_retry: if extras.listen { 10 } else { CONNECT_ALONE },
        bfd: extras.bfd.is_some(),
        bfd_timers: extras.bfd.filter(|timers| *timers != Bfd::default()),
        graceful_restart: extras.graceful_restart,
        outbound_filter: extras.outbound_filter,
        leak: extras.leak.as_ref(),
        password: extras.password.as_deref(),
        extra: extras.extra.as_deref(),
    };
    let daemons = Daemons {
        bfd: extras.bfd.is_some(),
        listen: extras.listen,
        zebra_keep: extras.zebra_keep,
    };
    Ok([
        ("daemons", fill("daemons", &daemons)?),
        ("vtysh.conf", VTYSH_CONF.into()),
        ("frr.conf", fill("frr.conf", &frr_conf)?),
    ])
}

/// IPv4 over IPv4 sessions, IPv6 over IPv6 sessions, and with `ipv6` over both. Unnumbered sessions carry IPv4 too,
/// with IPv6 next hops (RFC 8950), which FRR negotiates for them. The agent leaks in both families, even if no leaf
/// switch carries them.
fn families(leaves: &[Leaf], ipv6: bool, leak: bool) -> Vec<Family<'_>> {
    let peers = leaves.iter().map(|leaf| &leaf.peer);
    let is_ipv6 = |peer: &PeerName| peer.address().is_some_and(|address| address.is_ipv6());
    let v4 = Family {
        name: "ipv4",
        keyword: "ip",
        filter: "HOSTS-V4",
        hosts: "0.0.0.0/0 ge 32",
        leaves: peers.clone().filter(|peer| !is_ipv6(peer)).collect(),
    };
    let v6 = Family {
        name: "ipv6",
        keyword: "ipv6",
        filter: "HOSTS-V6",
        hosts: "::/0 ge 128",
        leaves: peers.filter(|peer| ipv6 || is_ipv6(peer)).collect(),
    };
    let mut families = vec![v4, v6];
    families.retain(|family| leak || !family.leaves.is_empty());
    families
}

fn fill(file: &'static str, template: &impl Template) -> Result<String, ConfigError> {
    let filled = template.render();
    let mut text = filled.map_err(|source| ConfigError::Template { file, source })?;
    // askama removes the final newline of a template.
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
