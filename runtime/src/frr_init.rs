//! `obgp-runtime frr-init`: the node's network and the site's mapping -> FRR's configuration, and `bgp-config.env` for the agent.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::asn::Asn;
use crate::cli::Failure;
use crate::env_file;
use crate::files::{self, Until};
use crate::frr_config::{self, Leaf, RouteReflector, Sessions};
use crate::given::Given;
use crate::mapping::{Mapping, MappingError};
use crate::network::{Interface, Netlink};
use crate::peer::{self, Choice, Discovery, Found};
use crate::preflight::Preflight;
use crate::probe::Prober;
use crate::report::{AsnSource, Local, Peer, Report};

/// In the shared directory; its presence says that everything else is there.
pub const ENV_FILE: &str = "bgp-config.env";
/// The agent's user, and FRR's, are to read it.
const ENV_MODE: u32 = 0o644;
/// The end of the time for probing.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Find the gateway and the ASNs, and write FRR's configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The leaf switch is found by detection, in this order:
  route               the gateway of the interface's default route, lowest metric; on-link routes name nobody
  detection:first     the subnet's first address answers (ARP, ICMP echo); or
  detection:last      its last address does
  detection:neighbor  the kernel's neighbour table knows one of these, or one neighbour only
  detection:fallback  the subnet's first address, unproven
On a /31 it is the other address. On a /32 only a route or a fixed address can tell.

Example:
  NODE_NAME=worker1 obgp-runtime frr-init --interface br-ex --asn-mapping /etc/ovn-bgp-agent/asn-mapping")]
pub struct Args {
    /// The interface that leads to the leaf switch
    #[arg(long, env = "INTERFACE", value_name = "NAME", default_value = "br-ex")]
    interface: String,
    /// This node's name; otherwise its host name
    #[arg(
        long,
        env = "NODE_NAME",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    node_name: Given<String>,
    /// This node's address in the cluster: of several addresses on the interface, it is the one
    #[arg(
        long,
        env = "NODE_IP",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    node_ip: Given<IpAddr>,
    /// The leaf switch: detection, first or last of the subnet, or addresses with commas between them
    #[arg(long, env = "BGP_PEER_IP", value_name = "HOW|IP[,IP]…", default_value = "detection", value_parser = peer_ip)]
    peer_ip: Choice,
    /// This server's ASN; otherwise 4200000000 + the last three octets of its address
    #[arg(
        long,
        env = "BGP_AS",
        value_name = "ASN",
        default_value = "",
        hide_default_value = true
    )]
    asn: Given<Asn>,
    /// Which leaf switch has which ASN: mapping.json, or the directory it is in
    #[arg(
        long,
        env = "ASN_MAPPING",
        value_name = "DIR|FILE",
        default_value = "/etc/ovn-bgp-agent/asn-mapping"
    )]
    asn_mapping: PathBuf,
    /// Where bgp-config.env is written, for the agent
    #[arg(long, env = "SHARED_DIR", value_name = "DIR", default_value = "/run/ovn-bgp-agent")]
    shared_dir: PathBuf,
    /// How long an answer is waited for that decides who the leaf switch is, in milliseconds
    #[arg(long, env = "PROBE_TIMEOUT_MS", value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=LONGEST_PROBE.as_millis() as u64))]
    probe_timeout_ms: u64,
    /// Report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    frr: frr_config::Options,
    #[command(flatten)]
    preflight: Preflight,
}

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error(
        "{interface} has no IPv4 address, of which the ASN and the router ID are made{down}; \
         give it one, or set --interface to the one that leads to the leaf switch"
    )]
    NoIpv4 { interface: String, down: &'static str },
}

/// clap's own parser would take the parts of a list for values.
fn peer_ip(text: &str) -> Result<Choice, String> {
    text.parse()
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // The first process of a container ignores these signals otherwise. 128 + the signal, as shells have it.
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))?;
    }
    let env_file = args.shared_dir.join(ENV_FILE);
    // What an earlier start found is not to be taken for the result of this one, should this one fail.
    match std::fs::remove_file(&env_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: cannot remove the earlier one: {error}", env_file.display()).into());
        }
        _ => (),
    }

    args.preflight.node()?;
    let mut notes = Vec::new();
    let (report, sessions) = find(args, &mut notes)?;
    for note in &report.notes {
        eprintln!("obgp-runtime: note: {note}");
    }
    frr_config::write(&sessions, &args.frr)?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &report)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{report}")?;
    }
    stdout.flush()?;
    let variables = env_file::render(variables(args, &report));
    files::write(&env_file, variables.as_bytes(), ENV_MODE, None, Until::Stored)?;
    Ok(ExitCode::SUCCESS)
}

fn find(args: &Args, notes: &mut Vec<String>) -> Result<(Report, Sessions), Failure> {
    let reflector = args.frr.route_reflector()?;
    let mapping = Mapping::load(&args.asn_mapping)?;
    let mut netlink = Netlink::open()?;
    let interface = netlink.interface(&args.interface)?;
    let node = node_address(args, &interface, notes)?;
    let asn = args.asn.0.unwrap_or_else(|| Asn::of_server(node.addr()));
    if args.asn.0.is_none() {
        notes.extend(mapping.collision());
    }
    // Before probing, which takes time and changes nothing about it.
    if !matches!(args.peer_ip, Choice::Fixed(_)) {
        mapping.leaf_asn(IpNet::V4(node))?;
    }
    let timeout = Duration::from_millis(args.probe_timeout_ms);
    let mut prober = Prober::new(netlink, interface.index, node.addr().into(), timeout);
    let found = peer::discover(&args.peer_ip, node, &interface, &mut prober, notes)?;
    notes.append(&mut prober.notes);
    let leaves: Vec<Leaf> = found
        .iter()
        .map(|found| {
            let asn = asn_of_leaf(found, node, &interface, &mapping)?;
            Ok(Leaf {
                address: found.address,
                asn,
            })
        })
        .collect::<Result<_, MappingError>>()?;
    let peers = found.iter().zip(&leaves).map(|(found, leaf)| Peer {
        address: leaf.address,
        asn: leaf.asn,
        asn_source: AsnSource::ConfigMap,
        discovery: found.discovery,
        reachable: Peer::reachable(found.reachable),
    });
    let report = Report {
        node: args.node_name.as_ref().cloned().unwrap_or_else(host_name),
        interface: interface.name.clone(),
        subnet: node.trunc(),
        local: Local {
            address: node,
            ipv4: node.addr(),
            asn,
            asn_source: match args.asn.0 {
                Some(_) => AsnSource::Option,
                None => AsnSource::AutoGenerated,
            },
            router_id: node.addr(),
        },
        peers: peers.collect(),
        evpn: reflector,
        notes: std::mem::take(notes),
    };
    let sessions = Sessions {
        asn,
        router_id: node.addr(),
        leaves,
    };
    Ok((report, sessions))
}

/// Of several addresses: the node's in the cluster; the one whose subnet has the leaf switch or else the gateway in it; the first.
fn node_address(args: &Args, interface: &Interface, notes: &mut Vec<String>) -> Result<Ipv4Net, InitError> {
    let nets = interface.ipv4();
    let Some(first) = nets.first() else {
        return Err(InitError::NoIpv4 {
            interface: interface.name.clone(),
            down: if interface.up { "" } else { " (and it is down)" },
        });
    };
    let near = |address: IpAddr| match address {
        IpAddr::V4(address) => nets.iter().find(|net| net.prefix_len() < 32 && net.contains(&address)),
        IpAddr::V6(_) => None,
    };
    let in_cluster = nets.iter().find(|net| args.node_ip.0 == Some(net.addr().into()));
    let fixed = match &args.peer_ip {
        Choice::Fixed(addresses) => addresses.iter().find_map(|address| near(*address)),
        _ => None,
    };
    let mut routes = interface.default_routes.clone();
    routes.sort_by_key(|route| route.metric);
    let gateway = || routes.iter().find_map(|route| near(route.gateway?.into()));
    let chosen = in_cluster.or(fixed).or_else(gateway).unwrap_or(first);
    if nets.len() > 1 {
        let others: Vec<String> = nets
            .iter()
            .filter(|net| *net != chosen)
            .map(Ipv4Net::to_string)
            .collect();
        notes.push(format!(
            "{} has other addresses than {chosen} too: {}; NODE_IP can say which is the node's",
            interface.name,
            others.join(", ")
        ));
    }
    Ok(*chosen)
}

/// A fixed leaf may be in another subnet than the node's address is.
fn asn_of_leaf(found: &Found, node: Ipv4Net, interface: &Interface, mapping: &Mapping) -> Result<Asn, MappingError> {
    let subnet = match found.discovery {
        Discovery::Fixed => interface
            .subnet_of(found.address)
            .filter(|net| net.prefix_len() < net.max_prefix_len()),
        _ => Some(node.into()),
    };
    mapping.leaf_asn(subnet.unwrap_or_else(|| found.address.into()))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn variables(args: &Args, report: &Report) -> Vec<(&'static str, String)> {
    let joined = |part: &dyn Fn(&Peer) -> String| report.peers.iter().map(part).collect::<Vec<_>>().join(",");
    let node_ip: IpAddr = args.node_ip.0.unwrap_or(IpAddr::V4(report.local.ipv4));
    let mut variables = vec![
        ("NODE_NAME", report.node.clone()),
        ("NODE_IP", node_ip.to_string()),
        ("INTERFACE", report.interface.clone()),
        ("SUBNET", report.subnet.to_string()),
        ("BGP_AS", report.local.asn.to_string()),
        ("BGP_ROUTER_ID", report.local.router_id.to_string()),
        ("BGP_PEER_IP", joined(&|peer| peer.address.to_string())),
        ("BGP_PEER_AS", joined(&|peer| peer.asn.to_string())),
        ("BGP_PEER_DISCOVERY", joined(&|peer| peer.discovery.to_string())),
    ];
    if let Some(RouteReflector { address, asn }) = report.evpn {
        variables.push(("EVPN_RR_IP", address.to_string()));
        variables.push(("EVPN_RR_AS", asn.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests;
