//! The templates in `templates/`, filled in. The same input gives the same bytes.

use std::net::IpAddr;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::{ConfigError, Extras, Leaf, Sessions};

const FRR_CONF: &str = include_str!("../../templates/frr.conf.j2");
const DAEMONS: &str = include_str!("../../templates/daemons.j2");
const VTYSH_CONF: &str = include_str!("../../templates/vtysh.conf");

/// Names and contents. frr.conf is last: who waits for it finds the others.
pub(super) fn render(sessions: &Sessions, extras: &Extras) -> Result<[(&'static str, String); 3], ConfigError> {
    let daemons = fill("daemons", DAEMONS, context! { bfd => extras.bfd })?;
    let leaves = &sessions.leaves;
    let model = context! {
        asn => sessions.asn.number(),
        router_id => sessions.router_id.to_string(),
        leaves => leaves.iter().map(leaf).collect::<Vec<_>>(),
        leaf_asns_differ => leaves.windows(2).any(|pair| pair[0].asn != pair[1].asn),
        families => families(leaves, extras.ipv6),
        evpn => extras.reflector.map(|reflector| context! {
            address => reflector.address.to_string(),
            asn => reflector.asn.number(),
            // The router ID is this server's address; for an IPv6 session the kernel chooses.
            source => reflector.address.is_ipv4().then(|| sessions.router_id.to_string()),
        }),
        bfd => extras.bfd,
        outbound_filter => extras.outbound_filter,
        password => extras.password.as_deref(),
        extra => extras.extra.as_deref(),
    };
    let frr_conf = fill("frr.conf", FRR_CONF, model)?;
    Ok([
        ("daemons", daemons),
        ("vtysh.conf", VTYSH_CONF.into()),
        ("frr.conf", frr_conf),
    ])
}

fn leaf(leaf: &Leaf) -> Value {
    context! { address => leaf.address.to_string(), asn => leaf.asn.number() }
}

/// The address families with the leaves whose sessions carry them: IPv4 over IPv4, IPv6 over IPv6, and with `ipv6` over both.
fn families(leaves: &[Leaf], ipv6: bool) -> Vec<Value> {
    let of = |takes: &dyn Fn(IpAddr) -> bool| -> Vec<String> {
        let taken = leaves.iter().filter(|leaf| takes(leaf.address));
        taken.map(|leaf| leaf.address.to_string()).collect()
    };
    let family = |name: &str, keyword: &str, filter: &str, hosts: &str, leaves: Vec<String>| {
        let ecmp = (leaves.len() > 1).then_some(leaves.len());
        (!leaves.is_empty()).then(|| context! { name, keyword, filter, hosts, leaves, ecmp })
    };
    let v4 = family(
        "ipv4",
        "ip",
        "HOSTS-V4",
        "0.0.0.0/0 ge 32",
        of(&|address| address.is_ipv4()),
    );
    let v6 = family(
        "ipv6",
        "ipv6",
        "HOSTS-V6",
        "::/0 ge 128",
        of(&|address| ipv6 || address.is_ipv6()),
    );
    [v4, v6].into_iter().flatten().collect()
}

fn fill(file: &'static str, template: &str, model: Value) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Template { file, source };
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(failed)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.render_named_str(file, template, model).map_err(failed)
}

#[cfg(test)]
mod tests;
