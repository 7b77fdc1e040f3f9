//! Sessions and options -> the filled-in templates of `templates/`. The same input gives the same bytes.

use std::net::{IpAddr, Ipv4Addr};

use askama::Template;

use super::{ConfigError, Extras, Leaf, Leak, RouteReflector, Sessions};
use crate::asn::Asn;

const VTYSH_CONF: &str = include_str!("../../templates/vtysh.conf");

#[derive(Template)]
#[template(path = "daemons.j2", escape = "none")]
struct Daemons {
    bfd: bool,
}

#[derive(Template)]
#[template(path = "frr.conf.j2", escape = "none")]
struct FrrConf<'a> {
    asn: Asn,
    router_id: Ipv4Addr,
    leaves: &'a [Leaf],
    leaf_asns_differ: bool,
    families: Vec<Family>,
    evpn: Option<Evpn>,
    bfd: bool,
    outbound_filter: bool,
    leak: Option<&'a Leak>,
    password: Option<&'a str>,
    extra: Option<&'a str>,
}

/// An address family and the leaf switches whose sessions carry it.
struct Family {
    name: &'static str,
    /// The keyword before `prefix-list`.
    keyword: &'static str,
    /// The name of the prefix list.
    filter: &'static str,
    hosts: &'static str,
    leaves: Vec<IpAddr>,
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
        leaf_asns_differ: leaves.windows(2).any(|pair| pair[0].asn != pair[1].asn),
        families: families(leaves, extras.ipv6, extras.leak.is_some()),
        evpn: extras.reflector.map(|RouteReflector { address, asn }| Evpn {
            address,
            asn,
            // The router ID is this server's IPv4 address. For an IPv6 session the kernel chooses the source.
            source: address.is_ipv4().then_some(sessions.router_id),
        }),
        bfd: extras.bfd,
        outbound_filter: extras.outbound_filter,
        leak: extras.leak.as_ref(),
        password: extras.password.as_deref(),
        extra: extras.extra.as_deref(),
    };
    Ok([
        ("daemons", fill("daemons", &Daemons { bfd: extras.bfd })?),
        ("vtysh.conf", VTYSH_CONF.into()),
        ("frr.conf", fill("frr.conf", &frr_conf)?),
    ])
}

/// IPv4 over IPv4 sessions, IPv6 over IPv6 sessions, and with `ipv6` over both. The agent leaks in both families, even if no leaf
/// switch carries them.
fn families(leaves: &[Leaf], ipv6: bool, leak: bool) -> Vec<Family> {
    let addresses = leaves.iter().map(|leaf| leaf.address);
    let v4 = Family {
        name: "ipv4",
        keyword: "ip",
        filter: "HOSTS-V4",
        hosts: "0.0.0.0/0 ge 32",
        leaves: addresses.clone().filter(IpAddr::is_ipv4).collect(),
    };
    let v6 = Family {
        name: "ipv6",
        keyword: "ipv6",
        filter: "HOSTS-V6",
        hosts: "::/0 ge 128",
        leaves: addresses.filter(|address| ipv6 || address.is_ipv6()).collect(),
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
