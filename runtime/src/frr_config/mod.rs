//! `obgp-runtime frr-config`: BGP sessions and options -> FRR's `daemons`, `frr.conf` and `vtysh.conf`.

mod options;
mod render;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::agent_options::{AgentOptions, Leak, OptionsError};
use crate::asn::Asn;
use crate::bgp_peer::{PeerAs, PeerName, parse_interfaces};
use crate::failure::Failure;
use crate::files::{self, Durability, FileError};
use crate::peer;
pub use options::Options;
use options::{Bfd, GracefulRestart};

/// The mode that FRR's packages and images use. frr.conf may contain a password.
const MODE: u32 = 0o640;
/// Linux's limit for a TCP MD5 (RFC 2385) password.
const PASSWORD_LIMIT: usize = 80;

/// Write FRR's configuration: daemons, frr.conf, vtysh.conf
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  obgp-runtime frr-config --asn 4200049263 --router-id 10.0.192.111 \\
      --peer-ip 10.0.192.1 --peer-asn 65001 --output-dir /etc/frr
  obgp-runtime frr-config --asn 4200049263 --router-id 10.0.192.111 \\
      --peer-interface eth0,eth1 --peer-asn external

frr-init determines these values and writes the same files.")]
pub struct Args {
    /// This server's ASN
    #[arg(long, env = "BGP_AS", value_name = "ASN")]
    asn: Asn,
    /// The router ID: this server's IPv4 address on the interface to the leaf switch
    #[arg(long, env = "BGP_ROUTER_ID", value_name = "IPV4")]
    router_id: Ipv4Addr,
    /// Address of the leaf switch, or several, separated by commas
    #[arg(long, env = "BGP_PEER_IP", value_name = "IP[,IP]…", default_value = "", hide_default_value = true, value_parser = addresses)]
    peer_ip: Addresses,
    /// Interface that leads to a leaf switch without a configured address (BGP unnumbered), or several, separated by
    /// commas
    #[arg(long, env = "BGP_PEER_INTERFACE", value_name = "NAME[,NAME]…", default_value = "", hide_default_value = true, value_parser = parse_interfaces)]
    peer_interface: Interfaces,
    /// ASN of the leaf switch, or external for any other than this server's: one for all, or one for each, separated
    /// by commas
    #[arg(
        long,
        visible_alias = "peer-as",
        env = "BGP_PEER_AS",
        value_name = "external|ASN[,ASN]…",
        value_delimiter = ',',
        required = true
    )]
    peer_asn: Vec<PeerAs>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--evpn-rr-ip and --evpn-rr-asn must be used together: {0} is missing")]
    HalfReflector(&'static str),
    #[error("{0} is both leaf switch and EVPN route reflector, but FRR can have only one session with an address")]
    LeafIsReflector(IpAddr),
    #[error(
        "there is no leaf switch\nhelp: set --peer-ip to its address, or --peer-interface to the interface that leads to it"
    )]
    NoPeer,
    #[error("--peer-ip and --peer-interface exclude each other\nhelp: use one of them")]
    TwoKinds,
    #[error("the {whose} ASN {asn} is this server's own, but an eBGP session needs two different ASNs")]
    OwnAsn { whose: &'static str, asn: Asn },
    #[error("{peers} leaf switches and {asns} ASNs\nhelp: set --peer-asn to one ASN for all, or one for each")]
    Uneven { peers: usize, asns: usize },
    #[error("the router ID {0} is not a host address")]
    RouterId(Ipv4Addr),
    #[error("{path}: FRR needs a password of 1 to {PASSWORD_LIMIT} printable ASCII characters without spaces", path = path.display())]
    Password { path: PathBuf },
    #[error("{path} line {line}: FRR cannot parse control characters", path = path.display())]
    Extra { path: PathBuf, line: usize },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the agent's configuration: {0}")]
    Agent(#[from] OptionsError),
    #[error("cannot fill in the template of {file}: {source}")]
    Template { file: &'static str, source: askama::Error },
}

/// The server and its sessions with leaf switches.
#[derive(Clone, Debug)]
pub struct Sessions {
    pub asn: Asn,
    pub router_id: Ipv4Addr,
    pub leaves: Vec<Leaf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub peer: PeerName,
    pub asn: PeerAs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReflector {
    pub address: IpAddr,
    pub asn: Asn,
}

// Aliases, because clap would treat a `Vec` as repeated values.
type Addresses = Vec<IpAddr>;
pub type Interfaces = Vec<String>;

fn addresses(text: &str) -> Result<Addresses, String> {
    match text.trim() {
        "" => Ok(Vec::new()),
        list => peer::parse_addresses(list),
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let addresses = args.peer_ip.iter().copied().map(PeerName::Address);
    let interfaces = args.peer_interface.iter().cloned().map(PeerName::Interface);
    let peers: Vec<PeerName> = match (args.peer_ip.is_empty(), args.peer_interface.is_empty()) {
        (true, true) => return Err(ConfigError::NoPeer.into()),
        (false, false) => return Err(ConfigError::TwoKinds.into()),
        _ => addresses.chain(interfaces).collect(),
    };
    let asns = match args.peer_asn.as_slice() {
        [one] => vec![*one; peers.len()],
        several => several.to_vec(),
    };
    if asns.len() != peers.len() {
        return Err(Box::new(ConfigError::Uneven {
            peers: peers.len(),
            asns: asns.len(),
        }));
    }
    let leaves = peers.into_iter().zip(asns);
    let sessions = Sessions {
        asn: args.asn,
        router_id: args.router_id,
        leaves: leaves.map(|(peer, asn)| Leaf { peer, asn }).collect(),
    };
    write(&sessions, &args.options)?;
    Ok(ExitCode::SUCCESS)
}

/// Renders all files before it writes the first.
pub fn write(sessions: &Sessions, options: &Options) -> Result<(), ConfigError> {
    let rendered = render::render(sessions, &Extras::load(sessions, options)?)?;
    for (name, content) in rendered {
        let path = options.output_dir.join(name);
        files::write(
            &path,
            content.as_bytes(),
            MODE,
            Some(options.frr_owner),
            Durability::Visible,
        )?;
    }
    Ok(())
}

/// The validated options, with the content of the files that they name.
#[derive(Clone, Debug, Default)]
struct Extras {
    reflector: Option<RouteReflector>,
    ipv6: bool,
    listen: bool,
    zebra_keep: Option<u16>,
    bfd: Option<Bfd>,
    graceful_restart: Option<GracefulRestart>,
    outbound_filter: bool,
    leak: Option<Leak>,
    password: Option<String>,
    extra: Option<String>,
}

impl Extras {
    fn load(sessions: &Sessions, options: &Options) -> Result<Self, ConfigError> {
        let reflector = options.route_reflector()?;
        check(sessions, reflector)?;
        Ok(Self {
            reflector,
            ipv6: options.ipv6,
            listen: options.listen,
            zebra_keep: options.zebra_keep(),
            bfd: options.bfd(),
            graceful_restart: options.graceful_restart(),
            outbound_filter: !options.no_outbound_filter,
            leak: leak(&options.agent_config)?,
            password: options.password_file.as_ref().map(|path| password(path)).transpose()?,
            extra: options.extra_config.as_ref().map(|path| extra(path)).transpose()?,
        })
    }
}

fn check(sessions: &Sessions, reflector: Option<RouteReflector>) -> Result<(), ConfigError> {
    let own = |whose, asn| match asn == sessions.asn {
        true => Err(ConfigError::OwnAsn { whose, asn }),
        false => Ok(()),
    };
    let id = sessions.router_id;
    if id.is_unspecified() || id.is_broadcast() || id.is_multicast() || id.is_loopback() {
        return Err(ConfigError::RouterId(id));
    }
    for leaf in &sessions.leaves {
        if let PeerAs::Number(asn) = leaf.asn {
            own("leaf switch's", asn)?;
        }
        let address = leaf.peer.address();
        if let Some(both) = reflector
            .map(|reflector| reflector.address)
            .filter(|own| Some(*own) == address)
        {
            return Err(ConfigError::LeafIsReflector(both));
        }
    }
    reflector.map_or(Ok(()), |reflector| own("route reflector's", reflector.asn))
}

/// The init container may not mount the agent's configuration.
fn leak(path: &Path) -> Result<Option<Leak>, ConfigError> {
    let options = match path.try_exists() {
        Ok(false) => {
            let path = path.display();
            eprintln!("obgp-runtime: note: there is no {path}; frr.conf leaks the agent's default VRF, bgp-vrf");
            AgentOptions::default()
        }
        _ => AgentOptions::load(path)?,
    };
    Ok(options.vrf_leak()?)
}

fn password(path: &Path) -> Result<String, ConfigError> {
    let text = files::read_text(path)?;
    // Editors add a final newline.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let readable = password.bytes().all(|byte| byte.is_ascii_graphic());
    if password.is_empty() || password.len() > PASSWORD_LIMIT || !readable {
        return Err(ConfigError::Password { path: path.into() });
    }
    Ok(password.into())
}

fn extra(path: &Path) -> Result<String, ConfigError> {
    let text = files::read_text(path)?;
    let bad = |line: &str| line.trim_end_matches('\r').chars().any(|c| c.is_control() && c != '\t');
    if let Some(index) = text.lines().position(bad) {
        return Err(ConfigError::Extra {
            path: path.into(),
            line: index + 1,
        });
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    Ok(lines.join("\n").trim_end().into())
}

#[cfg(test)]
mod tests;
