//! `obgp-runtime frr-config`: sessions and options -> `daemons`, `frr.conf` and `vtysh.conf`.

mod render;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use serde::Serialize;

use crate::agent::options::{Leak, Options as AgentOptions, OptionsError};
use crate::asn::Asn;
use crate::cli::Failure;
use crate::files::{self, FileError, Owner, Until};
use crate::given::Given;
use crate::peer;

/// What FRR's own packages and images give its files: the password of a session is in one.
const MODE: u32 = 0o640;
/// TCP MD5 (RFC 2385) as Linux has it.
const PASSWORD_LIMIT: usize = 80;

/// Write FRR's configuration: daemons, frr.conf, vtysh.conf
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  obgp-runtime frr-config --asn 4200049263 --router-id 10.0.192.111 \\
      --peer-ip 10.0.192.1 --peer-asn 65001 --output-dir /etc/frr

frr-init finds these out and calls it itself.")]
pub struct Args {
    /// This server's ASN
    #[arg(long, env = "BGP_AS", value_name = "ASN")]
    asn: Asn,
    /// The router ID: this server's IPv4 address towards the leaf switch
    #[arg(long, env = "BGP_ROUTER_ID", value_name = "IPV4")]
    router_id: Ipv4Addr,
    /// The leaf switch's address; several with commas between them
    #[arg(long, env = "BGP_PEER_IP", value_name = "IP[,IP]…", value_parser = addresses)]
    peer_ip: Addresses,
    /// The leaf switch's ASN: one for all, or one each with commas between them
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

/// What frr-init passes through.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where FRR's configuration is written
    #[arg(long, env = "FRR_CONFIG_DIR", value_name = "DIR", default_value = "/etc/frr")]
    pub output_dir: PathBuf,
    /// Whom FRR's files are to belong to, in the image that runs FRR. Without root they belong to whoever runs this
    #[arg(long, env = "FRR_OWNER", value_name = "UID:GID", default_value = "100:101")]
    pub frr_owner: Owner,
    /// Address of an EVPN route reflector (a spine), for an eBGP multihop session
    #[arg(
        long,
        env = "EVPN_RR_IP",
        value_name = "IP",
        default_value = "",
        hide_default_value = true
    )]
    pub evpn_rr_ip: Given<IpAddr>,
    /// ASN of the EVPN route reflector
    #[arg(
        long,
        env = "EVPN_RR_AS",
        value_name = "ASN",
        default_value = "",
        hide_default_value = true
    )]
    pub evpn_rr_asn: Given<Asn>,
    /// Exchange IPv6 routes too, over the sessions with IPv4 addresses
    #[arg(long, env = "FRR_IPV6", value_parser = FalseyValueParser::new())]
    pub ipv6: bool,
    /// Notice a dead leaf switch by BFD, which it has to speak too
    #[arg(long, env = "FRR_BFD", value_parser = FalseyValueParser::new())]
    pub bfd: bool,
    /// Announce every prefix. Otherwise only single addresses (/32, /128) are
    #[arg(long, env = "FRR_NO_OUTBOUND_FILTER", value_parser = FalseyValueParser::new())]
    pub no_outbound_filter: bool,
    /// The agent's configuration, which names the VRF that frr.conf leaks routes from. Without the file the agent's defaults apply
    #[arg(
        long,
        env = "AGENT_CONFIG",
        value_name = "FILE",
        default_value = "/etc/ovn-bgp-agent/ovn-bgp-agent.conf"
    )]
    pub agent_config: PathBuf,
    /// File with the password of the sessions with the leaf switches (TCP MD5)
    #[arg(
        long,
        env = "BGP_PASSWORD_FILE",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub password_file: Given<PathBuf>,
    /// File with lines for the end of frr.conf
    #[arg(
        long,
        env = "FRR_EXTRA_CONFIG",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub extra_config: Given<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--evpn-rr-ip and --evpn-rr-asn belong together; {0} is missing")]
    HalfReflector(&'static str),
    #[error("{0} is both leaf switch and EVPN route reflector; a session with an address can be there once")]
    LeafIsReflector(IpAddr),
    #[error("the {whose} ASN {asn} is this server's own; the session is eBGP, which takes two")]
    OwnAsn { whose: &'static str, asn: Asn },
    #[error("{addresses} leaf switches and {asns} ASNs: give one --peer-asn for all, or one for each")]
    Uneven { addresses: usize, asns: usize },
    #[error("the router ID {0} is no address of a host")]
    RouterId(Ipv4Addr),
    #[error("{path}: the password is to be 1 to {PASSWORD_LIMIT} printable ASCII characters without spaces, which is what FRR can read", path = path.display())]
    Password { path: PathBuf },
    #[error("{path}: line {line} has a control character, which FRR cannot read", path = path.display())]
    Extra { path: PathBuf, line: usize },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("reading the agent's configuration: {0}")]
    Agent(#[from] OptionsError),
    #[error("the template of {file}: {source}")]
    Template { file: &'static str, source: askama::Error },
}

/// Whom this server has sessions with.
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

/// What clap is not to take for a list of values.
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

/// Renders all files, then writes them.
pub fn write(sessions: &Sessions, options: &Options) -> Result<(), ConfigError> {
    let rendered = render::render(sessions, &Extras::load(sessions, options)?)?;
    for (name, content) in rendered {
        let path = options.output_dir.join(name);
        files::write(&path, content.as_bytes(), MODE, Some(options.frr_owner), Until::Seen)?;
    }
    Ok(())
}

/// The options with the files they name read, and all of it checked.
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

/// The container that writes frr.conf may not have the agent's configuration.
fn leak(path: &Path) -> Result<Option<Leak>, ConfigError> {
    let options = match path.try_exists() {
        Ok(false) => {
            let path = path.display();
            eprintln!("obgp-runtime: note: there is no {path}: frr.conf leaks the agent's default VRF, bgp-vrf");
            AgentOptions::default()
        }
        _ => AgentOptions::load(path)?,
    };
    Ok(options.vrf_leak()?)
}

fn password(path: &Path) -> Result<String, ConfigError> {
    let text = files::read_text(path)?;
    // Editors end files with a newline.
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
