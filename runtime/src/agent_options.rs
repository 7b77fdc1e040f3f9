//! The agent's configuration file -> the options that this program needs.
//!
//! The format is oslo.config's: `[section]`, `name = value` or `name: value`, and comments with `#` or `;`. A line that starts with
//! white space continues the previous value. References to other options (`$name`) are not resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};
use crate::network::is_interface_name;

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: &'static str,
    },
    #[error("[{section}] {name} = {value:?} in {}: {problem}", path.display())]
    Value {
        path: PathBuf,
        section: &'static str,
        name: &'static str,
        value: String,
        problem: &'static str,
    },
}

/// The address of an OVSDB server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Unix(PathBuf),
    Tcp {
        scheme: Scheme,
        /// An address or a name.
        host: String,
        port: u16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Tcp,
    /// TCP with TLS.
    Ssl,
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Ssl => "ssl",
        })
    }
}

/// In the syntax of the options.
impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp { scheme, host, port } if host.contains(':') => write!(formatter, "{scheme}:[{host}]:{port}"),
            Self::Tcp { scheme, host, port } => write!(formatter, "{scheme}:{host}:{port}"),
        }
    }
}

/// An OVSDB connection that a working agent has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The section and the option that configure it.
    pub section: &'static str,
    pub option: &'static str,
    /// The connection is to one of these. Empty if the file does not name the server: the local Open vSwitch knows it, or the value
    /// contains a `$name`.
    pub remotes: Vec<Remote>,
}

/// The VRF whose routes FRR leaks into the default BGP instance. The agent configures it with `router bgp ASN vrf NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    pub vrf: String,
    /// The kinds of routes that FRR redistributes from the VRF into BGP, in FRR's syntax.
    pub redistribute: &'static [&'static str],
}

#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    path: PathBuf,
    values: BTreeMap<(String, String), String>,
}

impl AgentOptions {
    pub fn load(path: &Path) -> Result<Self, OptionsError> {
        Self::parse(&files::read_text(path)?, path)
    }

    pub fn parse(text: &str, path: &Path) -> Result<Self, OptionsError> {
        let mut options = Self {
            path: path.to_path_buf(),
            values: BTreeMap::new(),
        };
        let mut section: Option<String> = None;
        // The option that an indented line continues.
        let mut last: Option<(String, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let failed = |problem| OptionsError::Line {
                path: path.to_path_buf(),
                line: number + 1,
                problem,
            };
            let line = line.trim_end();
            if line.is_empty() {
                last = None;
            } else if line.starts_with(['#', ';']) {
            } else if line.starts_with([' ', '\t']) {
                let key = last
                    .as_ref()
                    .ok_or_else(|| failed("an indented line does not follow an option"))?;
                let value = options.values.entry(key.clone()).or_default();
                value.push('\n');
                value.push_str(line.trim_start());
            } else if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').filter(|name| !name.is_empty());
                section = Some(name.ok_or_else(|| failed("[section] is expected"))?.to_string());
                last = None;
            } else {
                let (name, value) = line
                    .split_once(['=', ':'])
                    .ok_or_else(|| failed("name = value is expected"))?;
                let section = section
                    .clone()
                    .ok_or_else(|| failed("an option precedes the first [section]"))?;
                let key = (section, name.trim_end().to_string());
                options.values.insert(key.clone(), unquoted(value.trim()).to_string());
                last = Some(key);
            }
        }
        Ok(options)
    }

    pub fn get(&self, section: &str, name: &str) -> Option<&str> {
        let value = self.values.get(&(section.to_string(), name.to_string()));
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The routing table of the agent's VRF. No bridge may have it.
    pub fn vrf_table(&self) -> Result<u32, OptionsError> {
        let name = "bgp_vrf_table_id";
        match self.get("DEFAULT", name) {
            None => Ok(crate::rt_tables::DEFAULT_VRF_TABLE),
            Some(value) => value
                .parse()
                .map_err(|_| self.bad("DEFAULT", name, value, "a table number is expected")),
        }
    }

    /// The name of the agent's VRF.
    pub fn vrf(&self) -> &str {
        self.get("DEFAULT", "bgp_vrf").unwrap_or("bgp-vrf")
    }

    /// Whether each bridge has its own routing table: only with this exposing method.
    pub fn has_bridge_tables(&self) -> bool {
        self.get("DEFAULT", "exposing_method")
            .is_none_or(|method| method == "underlay")
    }

    /// The leak that the agent configures when it starts and in each `frr_sync`. `None` for drivers and methods without a leak.
    ///
    /// Follows ensure_base_bgp_configuration in ovn_bgp_agent/drivers/openstack/utils/bgp.py.
    pub fn vrf_leak(&self) -> Result<Option<Leak>, OptionsError> {
        let method = self.get("DEFAULT", "exposing_method").unwrap_or("underlay");
        let driver = self.get("DEFAULT", "driver").unwrap_or("ovn_bgp_driver");
        if !["underlay", "dynamic", "ovn"].contains(&method) || driver == "ovn_evpn_driver" {
            return Ok(None);
        }
        let name = "bgp_vrf";
        let vrf = self.vrf();
        if vrf.contains('$') || !is_interface_name(vrf) {
            return Err(self.bad("DEFAULT", name, vrf, "an interface name without $ is expected"));
        }
        let subnets = self.get("DEFAULT", "advertisement_method_tenant_networks") == Some("subnet");
        Ok(Some(Leak {
            vrf: vrf.to_string(),
            redistribute: match subnets {
                true => &["connected", "kernel"],
                false if driver == "ovn_stretched_l2_bgp_driver" => &["kernel"],
                false => &["connected"],
            },
        }))
    }

    /// `reconcile_interval` or `frr_reconcile_interval`, in seconds.
    pub fn interval(&self, name: &'static str, default: u64) -> Result<u64, OptionsError> {
        match self.get("DEFAULT", name) {
            None => Ok(default),
            Some(value) => value
                .parse()
                .map_err(|_| self.bad("DEFAULT", name, value, "a number of seconds is expected")),
        }
    }

    /// The OVSDB connections that the agent makes with these options.
    pub fn connections(&self) -> Result<Vec<Expected>, OptionsError> {
        let northbound = self.get("DEFAULT", "driver") == Some("nb_ovn_bgp_driver");
        let database = if northbound {
            "ovn_nb_connection"
        } else {
            "ovn_sb_connection"
        };
        // The option's deprecated section is DEFAULT.
        let section = if self.get("ovn", database).is_some() {
            "ovn"
        } else {
            "DEFAULT"
        };
        let mut expected = vec![
            self.expected(
                "DEFAULT",
                "ovsdb_connection",
                "unix:/usr/local/var/run/openvswitch/db.sock",
            )?,
            self.expected(section, database, "")?,
        ];
        if self.get("DEFAULT", "exposing_method") == Some("ovn") {
            let local = "unix:/var/run/ovn/ovnnb_db.sock";
            expected.push(self.expected("local_ovn_cluster", "ovn_nb_connection", local)?);
        }
        Ok(expected)
    }

    fn expected(&self, section: &'static str, name: &'static str, default: &str) -> Result<Expected, OptionsError> {
        let value = self.get(section, name).unwrap_or(default);
        let mut remotes = Vec::new();
        if !value.contains('$') {
            for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                remotes.push(remote(text).map_err(|problem| self.bad(section, name, value, problem))?);
            }
        }
        Ok(Expected {
            section,
            option: name,
            remotes,
        })
    }

    fn bad(&self, section: &'static str, name: &'static str, value: &str, problem: &'static str) -> OptionsError {
        OptionsError::Value {
            path: self.path.clone(),
            section,
            name,
            value: value.to_string(),
            problem,
        }
    }
}

/// Removes one pair of quotes, as oslo.config does.
fn unquoted(value: &str) -> &str {
    let inside = |quote| {
        value
            .strip_prefix(quote)
            .and_then(|rest: &str| rest.strip_suffix(quote))
    };
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

fn remote(text: &str) -> Result<Remote, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(Remote::Unix(PathBuf::from(path))),
            false => Err("an absolute path is expected after unix:"),
        };
    }
    let after = |scheme: Scheme| {
        let rest = text.strip_prefix(&scheme.to_string())?.strip_prefix(':')?;
        Some((scheme, rest))
    };
    let address = after(Scheme::Tcp).or_else(|| after(Scheme::Ssl));
    let (scheme, address) = address.ok_or("tcp:HOST:PORT, ssl:HOST:PORT or unix:FILE is expected")?;
    if address.starts_with("//") {
        // The agent accepts this form, and its connection fails much later.
        return Err("write tcp:HOST:PORT, without slashes");
    }
    let parts = match address.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => address.split_once(':'),
    };
    let (host, port) = parts.ok_or("HOST:PORT is expected, with an IPv6 address in brackets")?;
    match port.parse() {
        Ok(port @ 1..) if !host.is_empty() => Ok(Remote::Tcp {
            scheme,
            host: host.to_string(),
            port,
        }),
        _ => Err("HOST:PORT is expected, with an IPv6 address in brackets"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(text: &str) -> Result<AgentOptions, String> {
        AgentOptions::parse(text, Path::new("a.conf")).map_err(|error| error.to_string())
    }

    fn connections(text: &str) -> Result<Vec<Expected>, String> {
        options(text)?.connections().map_err(|error| error.to_string())
    }

    #[test]
    fn the_format_is_that_of_oslo_config() {
        let text = "# comment\n[DEFAULT]\ndriver = nb_ovn_bgp_driver\nbgp_vrf_table_id: 20\n;x = 1\nquoted = \" a b \"\nempty =\n\
                    list = a,\n  b\n[ovn]\ndriver=other\n";
        let options = options(text).unwrap();
        assert_eq!(options.get("DEFAULT", "driver"), Some("nb_ovn_bgp_driver"));
        assert_eq!(options.get("ovn", "driver"), Some("other"));
        assert_eq!(options.get("DEFAULT", "quoted"), Some(" a b "));
        assert_eq!(options.get("DEFAULT", "list"), Some("a,\nb"));
        assert_eq!(
            (options.get("DEFAULT", "empty"), options.get("DEFAULT", "x")),
            (None, None)
        );
        assert_eq!(options.vrf_table().unwrap(), 20);
        assert!(options.has_bridge_tables());
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        for (text, complaint) in [
            ("a = 1\n", "a.conf line 1: an option precedes the first [section]"),
            (
                "[DEFAULT]\n  x\n",
                "a.conf line 2: an indented line does not follow an option",
            ),
            ("[DEFAULT\n", "a.conf line 1: [section] is expected"),
            ("[DEFAULT]\nnonsense\n", "a.conf line 2: name = value is expected"),
        ] {
            assert_eq!(options(text).unwrap_err(), complaint);
        }
        let options = options("[DEFAULT]\nbgp_vrf_table_id = ten\n").unwrap();
        assert!(
            options
                .vrf_table()
                .unwrap_err()
                .to_string()
                .contains("a table number is expected")
        );
    }

    #[test]
    fn the_driver_determines_the_connections() {
        let unix = |path: &str| Remote::Unix(PathBuf::from(path));
        let remote = |scheme, host: &str, port| Remote::Tcp {
            scheme,
            host: host.into(),
            port,
        };
        let tcp = |host, port| remote(Scheme::Tcp, host, port);
        let text = "[DEFAULT]\novsdb_connection = unix:/run/openvswitch/db.sock\ndriver = nb_ovn_bgp_driver\nexposing_method = ovn\n\
                    [ovn]\novn_nb_connection = tcp:10.0.0.1:6641,ssl:[fd00::1]:6641\novn_sb_connection = tcp:10.0.0.1:6642\n";
        let found = connections(text).unwrap();
        assert_eq!(found[0].remotes, [unix("/run/openvswitch/db.sock")]);
        assert_eq!(found[1].option, "ovn_nb_connection");
        let tls = remote(Scheme::Ssl, "fd00::1", 6641);
        assert_eq!(tls.to_string(), "ssl:[fd00::1]:6641");
        assert_eq!(found[1].remotes, [tcp("10.0.0.1", 6641), tls]);
        assert_eq!((found[1].section, found[2].section), ("ovn", "local_ovn_cluster"));
        assert_eq!(found[2].remotes, [unix("/var/run/ovn/ovnnb_db.sock")]);

        let found = connections("[DEFAULT]\novn_sb_connection = tcp:10.0.0.1:6642\n").unwrap();
        assert_eq!(
            found[0].remotes,
            [unix("/usr/local/var/run/openvswitch/db.sock")],
            "the agent's own default"
        );
        assert_eq!(
            (found[1].option, &found[1].remotes[..]),
            ("ovn_sb_connection", &[tcp("10.0.0.1", 6642)][..])
        );

        let found = connections("[DEFAULT]\novsdb_connection = unix:$dir/db.sock\n").unwrap();
        assert_eq!((found.len(), found[0].remotes.len(), found[1].remotes.len()), (2, 0, 0));
    }

    #[test]
    fn the_leak_is_the_one_that_the_agent_configures() {
        let leak = |text: &str| options(&format!("[DEFAULT]\n{text}")).unwrap().vrf_leak();
        let found = |text: &str| leak(text).unwrap().map(|leak| (leak.vrf, leak.redistribute.join(" ")));
        let expected = |vrf: &str, redistribute: &str| Some((vrf.to_string(), redistribute.to_string()));
        assert_eq!(found(""), expected("bgp-vrf", "connected"));
        assert_eq!(
            found("exposing_method = ovn\nbgp_vrf = red\n"),
            expected("red", "connected")
        );
        let subnet = "driver = nb_ovn_bgp_driver\nadvertisement_method_tenant_networks = subnet\n";
        assert_eq!(found(subnet), expected("bgp-vrf", "connected kernel"));
        assert_eq!(
            found("driver = ovn_stretched_l2_bgp_driver\n"),
            expected("bgp-vrf", "kernel")
        );
        for without in [
            "exposing_method = vrf\n",
            "exposing_method = l2vni\n",
            "driver = ovn_evpn_driver\n",
        ] {
            assert_eq!(found(without), None, "{without}");
        }
        for name in ["a b", "a\n  router bgp 1", "$name", "longer-than-allowed"] {
            let error = leak(&format!("bgp_vrf = {name}\n")).unwrap_err().to_string();
            assert!(error.contains("an interface name without $ is expected"), "{error}");
        }
    }

    #[test]
    fn connections_that_would_fail_late_are_rejected() {
        for (value, complaint) in [
            ("tcp://10.0.0.1:6641", "without slashes"),
            ("tcp:10.0.0.1", "HOST:PORT is expected"),
            ("tcp:10.0.0.1:0", "HOST:PORT is expected"),
            ("tcp::6641", "HOST:PORT is expected"),
            ("tcp:fd00::1:6641", "HOST:PORT is expected"),
            ("unix:db.sock", "an absolute path"),
            ("10.0.0.1:6641", "tcp:HOST:PORT"),
        ] {
            let error = connections(&format!("[DEFAULT]\novsdb_connection = {value}\n")).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in r"(\[?[a-z]{0,3}\]?[=: \t#]{0,2}(tcp:|unix:/|\$|x){0,2}\n){0,8}") {
            let _ = connections(&text);
        }
    }
}
