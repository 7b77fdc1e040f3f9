//! `obgp-runtime frr-config`: BGP sessions and options -> FRR's `daemons`, `frr.conf` and `vtysh.conf`.

mod render;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use serde::Serialize;

use crate::agent_options::{AgentOptions, Leak, OptionsError};
use crate::asn::Asn;
use crate::failure::Failure;
use crate::files::{self, Durability, FileError, Owner};
use crate::optional_arg::OptionalArg;
use crate::peer;

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

frr-init determines these values and writes the same files.")]
pub struct Args {
    /// This server's ASN
    #[arg(long, env = "BGP_AS", value_name = "ASN")]
    asn: Asn,
    /// The router ID: this server's IPv4 address on the interface to the leaf switch
    #[arg(long, env = "BGP_ROUTER_ID", value_name = "IPV4")]
    router_id: Ipv4Addr,
    /// Address of the leaf switch, or several, separated by commas
    #[arg(long, env = "BGP_PEER_IP", value_name = "IP[,IP]…", value_parser = addresses)]
    peer_ip: Addresses,
    /// ASN of the leaf switch: one for all, or one for each, separated by commas
    #[arg(
        long,
        env = "BGP_PEER_AS",
        value_name = "ASN[,ASN]…",
        value_delimiter = ',',
        required = true
    )]
    peer_asn: Vec<Asn>,
    #[command(flatten)]
    options: Options,
}

/// Options that frr-init has too.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directory for FRR's configuration
    #[arg(long, env = "FRR_CONFIG_DIR", value_name = "DIR", default_value = "/etc/frr")]
    pub output_dir: PathBuf,
    /// Owner of FRR's files, in the image that runs FRR. Ignored if this program does not run as root
    #[arg(long, env = "FRR_OWNER", value_name = "UID:GID", default_value = "100:101")]
    pub frr_owner: Owner,
    /// Address of an EVPN route reflector (a spine) for an eBGP multihop session
    #[arg(
        long,
        env = "EVPN_RR_IP",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    pub evpn_rr_ip: OptionalArg<IpAddr>,
    /// ASN of the EVPN route reflector
    #[arg(
        long,
        env = "EVPN_RR_AS",
        value_name = "ASN",
        default_value = "",
        hide_default_value = true
    )]
    pub evpn_rr_asn: OptionalArg<Asn>,
    /// Also exchange IPv6 routes over sessions with IPv4 addresses
    #[arg(long, env = "FRR_IPV6", value_parser = FalseyValueParser::new())]
    pub ipv6: bool,
    /// Detect a failed leaf switch with BFD, which the switch must support
    #[arg(long, env = "FRR_BFD", value_parser = FalseyValueParser::new())]
    pub bfd: bool,
    /// Announce every prefix. By default only single addresses (/32, /128) are announced
    #[arg(long, env = "FRR_NO_OUTBOUND_FILTER", value_parser = FalseyValueParser::new())]
    pub no_outbound_filter: bool,
    /// The agent's configuration, which names the VRF whose routes frr.conf leaks. Without the file the agent's defaults apply
    #[arg(
        long,
        env = "AGENT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/ovn-bgp-agent/ovn-bgp-agent.conf"
    )]
    pub agent_config: PathBuf,
    /// File with the TCP MD5 password of the sessions with the leaf switches
    #[arg(
        long,
        env = "BGP_PASSWORD_FILE",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub password_file: OptionalArg<PathBuf>,
    /// File with lines to append to frr.conf
    #[arg(
        long,
        env = "FRR_EXTRA_CONFIG",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub extra_config: OptionalArg<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--evpn-rr-ip and --evpn-rr-asn must be used together: {0} is missing")]
    HalfReflector(&'static str),
    #[error("{0} is both leaf switch and EVPN route reflector, but FRR can have only one session with an address")]
    LeafIsReflector(IpAddr),
    #[error("the {whose} ASN {asn} is this server's own, but an eBGP session needs two different ASNs")]
    OwnAsn { whose: &'static str, asn: Asn },
    #[error("{addresses} leaf switches and {asns} ASNs\nhelp: set --peer-asn to one ASN for all, or one for each")]
    Uneven { addresses: usize, asns: usize },
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub address: IpAddr,
    pub asn: Asn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReflector {
    pub address: IpAddr,
    pub asn: Asn,
}

/// An alias, because clap would treat a `Vec` as repeated values.
type Addresses = Vec<IpAddr>;

fn addresses(text: &str) -> Result<Addresses, String> {
    peer::parse_addresses(text)
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let asns = match args.peer_asn.as_slice() {
        [one] => vec![*one; args.peer_ip.len()],
        several => several.to_vec(),
    };
    if asns.len() != args.peer_ip.len() {
        return Err(Box::new(ConfigError::Uneven {
            addresses: args.peer_ip.len(),
            asns: asns.len(),
        }));
    }
    let leaves = args.peer_ip.iter().zip(asns);
    let sessions = Sessions {
        asn: args.asn,
        router_id: args.router_id,
        leaves: leaves.map(|(address, asn)| Leaf { address: *address, asn }).collect(),
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
    bfd: bool,
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
            bfd: options.bfd,
            outbound_filter: !options.no_outbound_filter,
            leak: leak(&options.agent_config)?,
            password: options.password_file.as_ref().map(|path| password(path)).transpose()?,
            extra: options.extra_config.as_ref().map(|path| extra(path)).transpose()?,
        })
    }
}

impl Options {
    pub fn route_reflector(&self) -> Result<Option<RouteReflector>, ConfigError> {
        match (self.evpn_rr_ip.0, self.evpn_rr_asn.0) {
            (Some(address), Some(asn)) => Ok(Some(RouteReflector { address, asn })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConfigError::HalfReflector("--evpn-rr-asn")),
            (None, Some(_)) => Err(ConfigError::HalfReflector("--evpn-rr-ip")),
        }
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
        own("leaf switch's", leaf.asn)?;
        if reflector.is_some_and(|reflector| reflector.address == leaf.address) {
            return Err(ConfigError::LeafIsReflector(leaf.address));
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
