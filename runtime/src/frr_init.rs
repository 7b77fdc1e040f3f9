//! `obgp-runtime frr-init`: the node's network and the site's mapping -> FRR's configuration and `bgp-config.env` for the agent.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::asn::{Asn, AsnError};
use crate::bgp_peer::{PeerAs, PeerName, parse_interfaces};
use crate::env_file;
use crate::failure::Failure;
use crate::files::{self, Durability};
use crate::frr_config::{self, ConfigError, Interfaces, Leaf, RouteReflector, Sessions};
use crate::mapping::{Mapping, MappingError};
use crate::network::{Interface, Netlink};
use crate::optional_arg::OptionalArg;
use crate::paths;
use crate::peer::{self, Choice, Discovery, FoundPeer};
use crate::preflight::{self, Preflight};
use crate::probe::Prober;
use crate::report::{AsnSource, Local, Peer, Report};
use crate::signals;

/// The agent's user and FRR's must be able to read the file.
const ENV_MODE: u32 = 0o644;
/// The largest value of --probe-timeout-ms.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Find the gateway and the ASNs, and write FRR's configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The leaf switch is found by detection, in this order:
  route               the gateway of the interface's default route with the lowest metric; on-link routes are ignored
  detection:first     the subnet's first address, if it answers (ARP, ICMP echo)
  detection:last      the subnet's last address, if it answers
  detection:neighbor  one of these addresses, or else the only neighbour, in the kernel's neighbour table
  detection:fallback  the subnet's first address, unconfirmed
On a /31 the leaf switch is the other address. A /32 needs a default route with a gateway, or a fixed address.

Example:
  NODE_NAME=worker1 obgp-runtime frr-init --interface br-ex --asn-mapping /etc/ovn-bgp-agent/asn-mapping
Sessions over interfaces without addresses (BGP unnumbered), the node's address on the loopback interface:
  NODE_NAME=worker1 obgp-runtime frr-init --interface lo --peer-interface eth0,eth1 --peer-asn external")]
pub struct Args {
    /// The interface that leads to the leaf switch
    #[arg(long, env = "INTERFACE", value_name = "NAME", default_value = "br-ex")]
    interface: String,
    /// This node's name [default: the host name]
    #[arg(
        long,
        env = "NODE_NAME",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    node_name: OptionalArg<String>,
    /// This node's address in the cluster: selects one of several addresses on the interface
    #[arg(
        long,
        env = "NODE_IP",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    node_ip: OptionalArg<IpAddr>,
    /// The leaf switch: detection, first or last (address of the subnet), or addresses, separated by commas
    #[arg(long, env = "BGP_PEER_IP", value_name = "HOW|IP[,IP]…", default_value = "detection", value_parser = peer_ip)]
    peer_ip: Choice,
    /// Interface that leads to a leaf switch without a configured address (BGP unnumbered), or several, separated by
    /// commas. It excludes --peer-ip
    #[arg(long, env = "BGP_PEER_INTERFACE", value_name = "NAME[,NAME]…", default_value = "", hide_default_value = true, value_parser = parse_interfaces)]
    peer_interface: Interfaces,
    /// The leaf switch's ASN: mapping (the subnet's in --asn-mapping), external (any except this server's; no mapping
    /// is needed), or a number
    #[arg(
        long,
        visible_alias = "peer-as",
        env = "BGP_PEER_AS",
        value_name = "mapping|external|ASN",
        default_value = "mapping"
    )]
    peer_asn: LeafAsn,
    /// This server's ASN [default: 4200000000 + the last three octets of its address]
    #[arg(
        long,
        env = "BGP_AS",
        value_name = "ASN",
        default_value = "",
        hide_default_value = true
    )]
    asn: OptionalArg<Asn>,
    /// The ASNs of the leaf switches: mapping.json, or its directory
    #[arg(
        long,
        env = "ASN_MAPPING",
        value_name = "DIR|FILE",
        default_value = "/etc/ovn-bgp-agent/asn-mapping"
    )]
    asn_mapping: PathBuf,
    /// Directory for bgp-config.env, shared with the agent
    #[arg(long, env = "SHARED_DIR", value_name = "DIR", default_value = "/run/ovn-bgp-agent")]
    shared_dir: PathBuf,
    /// Time limit in milliseconds for the probes that determine the leaf switch
    #[arg(long, env = "PROBE_TIMEOUT_MS", value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=LONGEST_PROBE.as_millis() as u64))]
    probe_timeout_ms: u64,
    /// Print the report as JSON
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
        "{interface} has no IPv4 address, which the ASN and the router ID are derived from{down}\n\
         help: add an IPv4 address, or set --interface to the one that leads to the leaf switch"
    )]
    NoIpv4 { interface: String, down: &'static str },
}

/// The option `--peer-asn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeafAsn {
    Mapping,
    Configured(PeerAs),
}

impl FromStr for LeafAsn {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Self, AsnError> {
        match text {
            "" | "mapping" => Ok(Self::Mapping),
            text => text.parse().map(Self::Configured),
        }
    }
}

/// A function, because clap has no parser for the type.
fn peer_ip(text: &str) -> Result<Choice, String> {
    text.parse()
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    signals::exit_on_termination()?;
    let env_file = paths::env_file(&args.shared_dir);
    // If this run fails, the result of an earlier run must not be taken for its result.
    files::remove(&env_file)?;

    let interfaces = std::iter::once(&args.interface).chain(&args.peer_interface);
    let frr = preflight::Frr {
        interfaces: interfaces.map(String::as_str).collect(),
        listen: args.frr.listen,
        bfd: args.frr.bfd,
    };
    args.preflight.node(&frr, &args.frr.agent_config)?;
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
    files::write(&env_file, variables.as_bytes(), ENV_MODE, None, Durability::Synced)?;
    Ok(ExitCode::SUCCESS)
}

fn find(args: &Args, notes: &mut Vec<String>) -> Result<(Report, Sessions), Failure> {
    let reflector = args.frr.route_reflector()?;
    let leaf_asns = match args.peer_asn {
        LeafAsn::Mapping => LeafAsns::Mapping(Mapping::load(&args.asn_mapping)?),
        LeafAsn::Configured(asn) => LeafAsns::Configured(asn),
    };
    let mut netlink = Netlink::open()?;
    let interface = netlink.interface(&args.interface)?;
    let node = node_address(args, &interface, notes)?;
    let asn = args.asn.0.unwrap_or_else(|| Asn::of_server(node.addr()));
    if let (None, LeafAsns::Mapping(mapping)) = (args.asn.0, &leaf_asns) {
        notes.extend(mapping.collision());
    }
    let site = Site {
        node,
        interface,
        leaf_asns,
    };
    let peers = match args.peer_interface.is_empty() {
        true => site.discovered(args, netlink, notes)?,
        false => site.unnumbered(args, &mut netlink, notes)?,
    };
    let sessions = Sessions {
        asn,
        router_id: node.addr(),
        leaves: peers
            .iter()
            .map(|peer| Leaf {
                peer: peer.name.clone(),
                asn: peer.asn,
            })
            .collect(),
    };
    let report = Report {
        node: args.node_name.as_ref().cloned().unwrap_or_else(host_name),
        interface: site.interface.name,
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
        peers,
        evpn: reflector,
        notes: std::mem::take(notes),
    };
    Ok((report, sessions))
}

struct Site {
    node: Ipv4Net,
    interface: Interface,
    leaf_asns: LeafAsns,
}

enum LeafAsns {
    Mapping(Mapping),
    Configured(PeerAs),
}

impl Site {
    /// The leaf switches of `--peer-ip`.
    fn discovered(&self, args: &Args, netlink: Netlink, notes: &mut Vec<String>) -> Result<Vec<Peer>, Failure> {
        // A missing entry is reported before the probes, which take time.
        if !matches!(args.peer_ip, Choice::Fixed(_)) {
            self.leaf_asn(self.node.into())?;
        }
        let timeout = Duration::from_millis(args.probe_timeout_ms);
        let mut prober = Prober::new(netlink, self.interface.index, self.node.addr().into(), timeout);
        let found = peer::discover(&args.peer_ip, self.node, &self.interface, &mut prober, notes)?;
        notes.append(&mut prober.notes);
        let peer = |found: &FoundPeer| {
            let (asn, asn_source) = self.leaf_asn(self.subnet_of_leaf(found))?;
            Ok(Peer {
                name: PeerName::Address(found.address),
                asn,
                asn_source,
                discovery: found.discovery,
                reachable: Peer::reachable(found.reachable),
            })
        };
        found.iter().map(peer).collect()
    }

    /// The leaf switches of `--peer-interface`. The kernel and FRR find their addresses.
    fn unnumbered(&self, args: &Args, netlink: &mut Netlink, notes: &mut Vec<String>) -> Result<Vec<Peer>, Failure> {
        if args.peer_ip != Choice::Detection {
            return Err(ConfigError::TwoKinds.into());
        }
        let (asn, asn_source) = self.leaf_asn(self.node.into())?;
        let mut peers = Vec::new();
        for name in &args.peer_interface {
            let interface = netlink.interface(name)?;
            if !interface.up {
                notes.push(format!("{name} is down"));
            } else if !interface.has_link_local() {
                notes.push(format!(
                    "{name} has no IPv6 link-local address, which its session needs: is net.ipv6.conf.{name}.disable_ipv6 1?"
                ));
            }
            peers.push(Peer {
                name: PeerName::Interface(name.clone()),
                asn,
                asn_source,
                discovery: Discovery::Interface,
                reachable: None,
            });
        }
        Ok(peers)
    }

    fn leaf_asn(&self, subnet: IpNet) -> Result<(PeerAs, AsnSource), MappingError> {
        match &self.leaf_asns {
            LeafAsns::Configured(asn) => Ok((*asn, AsnSource::Option)),
            LeafAsns::Mapping(mapping) => Ok((PeerAs::Number(mapping.leaf_asn(subnet)?), AsnSource::ConfigMap)),
        }
    }

    /// A fixed leaf switch may be in another subnet than the node's address.
    fn subnet_of_leaf(&self, found: &FoundPeer) -> IpNet {
        let subnet = match found.discovery {
            Discovery::Fixed => self
                .interface
                .subnet_of(found.address)
                .filter(|net| net.prefix_len() < net.max_prefix_len()),
            _ => Some(self.node.into()),
        };
        subnet.unwrap_or_else(|| found.address.into())
    }
}

/// Of several addresses on the interface: NODE_IP; else the one whose subnet contains a fixed leaf switch; else the
/// gateway; else the first.
fn node_address(args: &Args, interface: &Interface, notes: &mut Vec<String>) -> Result<Ipv4Net, InitError> {
    let nets = interface.ipv4();
    let Some(first) = nets.first() else {
        if let (false, Some(IpAddr::V4(address))) = (args.peer_interface.is_empty(), args.node_ip.0) {
            return Ok(address.into());
        }
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
            "{} has several addresses: {chosen} is used, not {}; to use another one, set NODE_IP",
            interface.name,
            others.join(", ")
        ));
    }
    Ok(*chosen)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn variables(args: &Args, report: &Report) -> Vec<(&'static str, String)> {
    let joined = |part: &dyn Fn(&Peer) -> String| report.peers.iter().map(part).collect::<Vec<_>>().join(",");
    let names = |interface: bool| {
        let peers = report.peers.iter().filter(|peer| peer.name.is_interface() == interface);
        peers.map(|peer| peer.name.to_string()).collect::<Vec<_>>().join(",")
    };
    let (addresses, interfaces) = (names(false), names(true));
    let node_ip: IpAddr = args.node_ip.0.unwrap_or(IpAddr::V4(report.local.ipv4));
    let mut variables = vec![
        ("NODE_NAME", report.node.clone()),
        ("NODE_IP", node_ip.to_string()),
        ("INTERFACE", report.interface.clone()),
        ("SUBNET", report.subnet.to_string()),
        ("BGP_AS", report.local.asn.to_string()),
        ("BGP_ROUTER_ID", report.local.router_id.to_string()),
        ("BGP_PEER_IP", addresses),
        ("BGP_PEER_AS", joined(&|peer| peer.asn.to_string())),
        ("BGP_PEER_DISCOVERY", joined(&|peer| peer.discovery.to_string())),
    ];
    if !interfaces.is_empty() {
        variables.push(("BGP_PEER_INTERFACE", interfaces));
    }
    if let Some(RouteReflector { address, asn }) = report.evpn {
        variables.push(("EVPN_RR_IP", address.to_string()));
        variables.push(("EVPN_RR_AS", asn.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests;
