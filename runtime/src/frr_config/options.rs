//! The options that `frr-config` and `frr-init` share.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;

use super::{ConfigError, RouteReflector};
use crate::asn::Asn;
use crate::files::Owner;
use crate::optional_arg::OptionalArg;

/// In seconds. As long as the default of graceful restart.
pub(super) const ZEBRA_KEEP: u16 = 120;

/// BFD's timers, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bfd {
    pub multiplier: u16,
    pub receive: u16,
    pub transmit: u16,
}

impl Default for Bfd {
    /// FRR's.
    fn default() -> Self {
        Self {
            multiplier: 3,
            receive: 300,
            transmit: 300,
        }
    }
}

/// In seconds (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GracefulRestart {
    pub restart: u16,
    pub stale: u16,
}

impl Default for GracefulRestart {
    /// FRR's.
    fn default() -> Self {
        Self {
            restart: 120,
            stale: 360,
        }
    }
}

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
    /// Accept connections on TCP port 179. By default only this server connects, because the node may run other BGP
    /// daemons
    #[arg(long, env = "BGP_LISTEN", value_parser = FalseyValueParser::new())]
    pub listen: bool,
    /// Seconds for which routes outlive a restart of FRR, until it has learned them again; 0: FRR removes them
    /// [default: 120]
    #[arg(long, env = "FRR_ZEBRA_KEEP", value_name = "SECONDS", default_value = "", hide_default_value = true, value_parser = zebra_keep)]
    pub zebra_keep: OptionalArg<u16>,
    /// Detect a failed leaf switch with BFD, which the switch must support
    #[arg(long, env = "FRR_BFD", value_parser = FalseyValueParser::new())]
    pub bfd: bool,
    /// With --bfd: the number of lost packets after which the leaf switch counts as failed, 2 to 255 [default: 3]
    #[arg(long, env = "BFD_DETECT_MULTIPLIER", value_name = "NUMBER", default_value = "", hide_default_value = true, value_parser = bfd_multiplier)]
    pub bfd_detect_multiplier: OptionalArg<u16>,
    /// With --bfd: the shortest accepted interval of the leaf switch's packets in milliseconds, 10 to 60000
    /// [default: 300]
    #[arg(long, env = "BFD_RECEIVE_INTERVAL", value_name = "MS", default_value = "", hide_default_value = true, value_parser = bfd_interval)]
    pub bfd_receive_interval: OptionalArg<u16>,
    /// With --bfd: the interval of this server's packets in milliseconds, 10 to 60000 [default: 300]
    #[arg(long, env = "BFD_TRANSMIT_INTERVAL", value_name = "MS", default_value = "", hide_default_value = true, value_parser = bfd_interval)]
    pub bfd_transmit_interval: OptionalArg<u16>,
    /// Seconds for which the leaf switch keeps the routes while bgpd restarts, 1 to 4095; 0: no graceful restart
    /// [default: 120]
    #[arg(long, env = "FRR_GRACEFUL_RESTART", value_name = "SECONDS", default_value = "", hide_default_value = true, value_parser = restart_time)]
    pub graceful_restart: OptionalArg<u16>,
    /// Seconds for which this server keeps the routes of a leaf switch that restarts, 1 to 4095 [default: 360]
    #[arg(long, env = "FRR_GRACEFUL_RESTART_STALE_TIME", value_name = "SECONDS", default_value = "", hide_default_value = true, value_parser = stale_time)]
    pub graceful_restart_stale_time: OptionalArg<u16>,
    /// Announce every prefix. By default only single addresses (/32, /128) are announced
    #[arg(long, env = "FRR_NO_OUTBOUND_FILTER", value_parser = FalseyValueParser::new())]
    pub no_outbound_filter: bool,
    /// The agent's configuration, which names the VRF whose routes frr.conf leaks. Without the file the agent's
    /// defaults apply
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

impl Options {
    pub fn route_reflector(&self) -> Result<Option<RouteReflector>, ConfigError> {
        match (self.evpn_rr_ip.0, self.evpn_rr_asn.0) {
            (Some(address), Some(asn)) => Ok(Some(RouteReflector { address, asn })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConfigError::HalfReflector("--evpn-rr-asn")),
            (None, Some(_)) => Err(ConfigError::HalfReflector("--evpn-rr-ip")),
        }
    }

    pub(super) fn bfd(&self) -> Option<Bfd> {
        let default = Bfd::default();
        self.bfd.then(|| Bfd {
            multiplier: self.bfd_detect_multiplier.0.unwrap_or(default.multiplier),
            receive: self.bfd_receive_interval.0.unwrap_or(default.receive),
            transmit: self.bfd_transmit_interval.0.unwrap_or(default.transmit),
        })
    }

    pub(super) fn graceful_restart(&self) -> Option<GracefulRestart> {
        let default = GracefulRestart::default();
        let restart = self.graceful_restart.0.unwrap_or(default.restart);
        (restart > 0).then(|| GracefulRestart {
            restart,
            stale: self.graceful_restart_stale_time.0.unwrap_or(default.stale),
        })
    }

    /// `None`: zebra does not keep routes.
    pub(super) fn zebra_keep(&self) -> Option<u16> {
        Some(self.zebra_keep.0.unwrap_or(ZEBRA_KEEP)).filter(|seconds| *seconds > 0)
    }
}

/// Parses a number of a range. An empty text is absent.
fn number(text: &str, least: u16, most: u16) -> Result<OptionalArg<u16>, String> {
    if text.is_empty() {
        return Ok(OptionalArg(None));
    }
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(OptionalArg(Some(number))),
        _ => Err(format!("a number from {least} to {most} is expected")),
    }
}

// Functions, because clap's parsers of ranges do not accept an empty text.

fn zebra_keep(text: &str) -> Result<OptionalArg<u16>, String> {
    number(text, 0, 3600)
}

fn bfd_multiplier(text: &str) -> Result<OptionalArg<u16>, String> {
    number(text, 2, 255)
}

fn bfd_interval(text: &str) -> Result<OptionalArg<u16>, String> {
    number(text, 10, 60_000)
}

fn restart_time(text: &str) -> Result<OptionalArg<u16>, String> {
    number(text, 0, 4095)
}

fn stale_time(text: &str) -> Result<OptionalArg<u16>, String> {
    number(text, 1, 4095)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let command = Command::try_parse_from([&["test"], arguments].concat());
        command
            .map(|command| command.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn absent_and_empty_numbers_have_the_defaults() {
        let empty = [
            "--zebra-keep=",
            "--bfd-detect-multiplier=",
            "--bfd-receive-interval=",
            "--bfd-transmit-interval=",
            "--graceful-restart=",
            "--graceful-restart-stale-time=",
        ];
        for arguments in [&[][..], &empty[..]] {
            let options = options(&[&["--bfd"], arguments].concat()).unwrap();
            assert_eq!(options.zebra_keep(), Some(120));
            assert_eq!(options.bfd(), Some(Bfd::default()));
            assert_eq!(options.graceful_restart(), Some(GracefulRestart::default()));
        }
        assert_eq!(options(&["--bfd-detect-multiplier=5"]).unwrap().bfd(), None);
    }

    #[test]
    fn zero_switches_off() {
        let off = options(&["--zebra-keep=0", "--graceful-restart=0"]).unwrap();
        assert_eq!((off.zebra_keep(), off.graceful_restart()), (None, None));
    }

    #[test]
    fn numbers_outside_frrs_ranges_are_rejected() {
        for argument in [
            "--zebra-keep=3601",
            "--zebra-keep=-1",
            "--bfd-detect-multiplier=1",
            "--bfd-receive-interval=9",
            "--bfd-transmit-interval=60001",
            "--graceful-restart=4096",
            "--graceful-restart-stale-time=0",
            "--graceful-restart=2m",
        ] {
            let error = options(&[argument]).unwrap_err();
            assert!(error.contains("is expected"), "{argument}: {error}");
        }
    }
}
