//! oslo.privsep's arguments become a request, if they have exactly the form in which oslo.privsep gives them.
//!
//! The grammar, one word per argument (`PrivContext.helper_command` of oslo.privsep writes it):
//!
//! ```text
//! ("--config-file" FILE | "--config-dir" DIR)* "--privsep_context" CONTEXT "--privsep_sock_path" SOCKET
//! ```

use std::ffi::OsString;

use super::context::Context;

/// More configuration files than anybody has.
const MOST_CONFIGURATIONS: usize = 16;
const LONGEST_PATH: usize = 1024;
const LONGEST_NAME: usize = 255;

/// Where configuration is that root alone writes.
const CONFIGURATION: [&str; 2] = ["/etc/ovn-bgp-agent", "/etc/bgp-agent"];
/// What `obgp-runtime agent` writes as the agent's user, and names to the helper beside the mounted file.
const AGENTS_OWN: &str = "/run/ovn-bgp-agent/node.conf";

/// What the helper may be started with, once the paths turned out to be what they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In order: later ones override earlier ones. Without the agent's own file.
    pub configuration: Vec<Configuration>,
    pub context: Context,
    pub socket: SocketPath,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    File(ConfigPath),
    Directory(ConfigPath),
}

/// Absolute, normalised, at or below one of the configuration directories, no part beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigPath(String);

impl ConfigPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `/tmp/tmpXXXXXXXX/privsep.sock`: the eight characters of Python's tempfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath {
    directory: String,
}

impl SocketPath {
    pub const PARENT: &'static str = "tmp";
    pub const NAME: &'static str = "privsep.sock";

    /// The name below `/tmp`.
    pub fn directory(&self) -> &str {
        &self.directory
    }
}

impl std::fmt::Display for SocketPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}/{}/{}", Self::PARENT, self.directory, Self::NAME)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error("{0} is missing, or not where oslo.privsep puts it")]
    Missing(&'static str),
    #[error("{0} has no value")]
    NoValue(&'static str),
    #[error("argument {0:?} is not one that oslo.privsep gives there")]
    Unexpected(String),
    #[error("more than {MOST_CONFIGURATIONS} configuration files and directories")]
    TooMany,
    #[error("configuration {0:?} is not a plain path below /etc/ovn-bgp-agent or /etc/bgp-agent")]
    Configuration(String),
    #[error(
        "context {0:?} is not one of the agent's three (ovn_bgp_agent.privileged.default, .ovs_vsctl_cmd, .vtysh_cmd)"
    )]
    Context(String),
    #[error("socket path {0:?} is not /tmp/tmpXXXXXXXX/privsep.sock as Python's tempfile makes it; is TMPDIR set?")]
    Socket(String),
}

pub fn parse(arguments: &[OsString]) -> Result<Request, ArgumentError> {
    let mut words = Words(arguments);
    let mut configuration = Vec::new();
    let mut count = 0;
    let context = loop {
        let option = words.next().ok_or(ArgumentError::Missing("--privsep_context"))?;
        match option.to_str() {
            Some("--config-file") => {
                let path = words.value("--config-file")?;
                if path.to_str() != Some(AGENTS_OWN) {
                    configuration.push(Configuration::File(config_path(path, Depth::Below)?));
                }
            }
            Some("--config-dir") => {
                let path = words.value("--config-dir")?;
                configuration.push(Configuration::Directory(config_path(path, Depth::AtOrBelow)?));
            }
            Some("--privsep_context") => {
                let name = words.value("--privsep_context")?;
                let context = name.to_str().and_then(Context::by_name);
                break context.ok_or_else(|| ArgumentError::Context(shown(name)))?;
            }
            _ => return Err(ArgumentError::Unexpected(shown(option))),
        }
        count += 1;
        if count > MOST_CONFIGURATIONS {
            return Err(ArgumentError::TooMany);
        }
    };
    match words.next() {
        Some(option) if option == "--privsep_sock_path" => {}
        Some(option) => return Err(ArgumentError::Unexpected(shown(option))),
        None => return Err(ArgumentError::Missing("--privsep_sock_path")),
    }
    let path = words.value("--privsep_sock_path")?;
    let socket = path.to_str().and_then(socket_path);
    let socket = socket.ok_or_else(|| ArgumentError::Socket(shown(path)))?;
    match words.next() {
        Some(extra) => Err(ArgumentError::Unexpected(shown(extra))),
        None => Ok(Request {
            configuration,
            context,
            socket,
        }),
    }
}

struct Words<'a>(&'a [OsString]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a OsString> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn value(&mut self, option: &'static str) -> Result<&'a OsString, ArgumentError> {
        self.next().ok_or(ArgumentError::NoValue(option))
    }
}

fn shown(argument: &OsString) -> String {
    argument.to_string_lossy().chars().take(200).collect()
}

/// Whether the configuration directory itself will do.
#[derive(PartialEq)]
enum Depth {
    Below,
    AtOrBelow,
}

fn config_path(path: &OsString, depth: Depth) -> Result<ConfigPath, ArgumentError> {
    let plain = path.to_str().filter(|path| {
        path.len() <= LONGEST_PATH
            && CONFIGURATION
                .iter()
                .filter_map(|directory| path.strip_prefix(directory))
                .any(|rest| match rest.strip_prefix('/') {
                    None => rest.is_empty() && depth == Depth::AtOrBelow,
                    Some(names) => names.split('/').all(plain_name),
                })
    });
    match plain {
        Some(path) => Ok(ConfigPath(path.to_string())),
        None => Err(ArgumentError::Configuration(shown(path))),
    }
}

/// Neither empty nor hidden, and nothing that a shell, a glob or oslo.config's `~` would take for something else.
fn plain_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn socket_path(path: &str) -> Option<SocketPath> {
    let directory = path.strip_prefix("/tmp/")?.strip_suffix("/privsep.sock")?;
    let random = directory.strip_prefix("tmp")?;
    let made_by_tempfile = random.len() == 8
        && random
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    made_by_tempfile.then(|| SocketPath {
        directory: directory.to_string(),
    })
}
