//! The text of an engine's address, as in `DOCKER_HOST` -> [`Address`].

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::endpoint::{EndpointError, TlsFiles};

pub(super) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `tls`: the certificate files; without them, plain TCP.
    Tcp {
        host: String,
        port: u16,
        tls: Option<TlsFiles>,
    },
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// The engine's socket on the remote host, if it is not the default one.
        socket: Option<String>,
    },
}

impl Address {
    /// Parses the addresses in `DOCKER_HOST` and contexts, as docker's `opts.ParseHost` does: `unix:///PATH`,
    /// `tcp://HOST:PORT`, `ssh://USER@HOST:PORT`. Without a scheme, `/PATH` is a socket, and `HOST:PORT`, `HOST` and `:PORT`
    /// are TCP addresses. An empty part has docker's default.
    pub fn parse(host: &str, tls: Option<TlsFiles>) -> Result<Self, EndpointError> {
        let text = host.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some(split) => split,
            None if text.is_empty() || text.starts_with(['/', '.']) => ("unix", text),
            None => ("tcp", text),
        };
        let parsed = match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(DEFAULT_SOCKET.into())),
            "unix" if !rest.starts_with('/') => Err("the socket's path must be absolute".to_string()),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" => Self::tcp(rest, tls),
            "ssh" => Self::ssh(text),
            other => Err(format!("{other}:// is not supported; use unix://, tcp:// or ssh://")),
        };
        parsed.map_err(|reason| EndpointError::Host {
            host: host.to_string(),
            reason,
        })
    }

    /// `HOST[:PORT]`, with an IPv6 address in brackets.
    fn tcp(text: &str, tls: Option<TlsFiles>) -> Result<Self, String> {
        let authority = text.strip_suffix('/').unwrap_or(text);
        if authority.contains('/') {
            return Err("a path after the port is not supported".into());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) if rest.is_empty() || rest.starts_with(':') => (address, rest.strip_prefix(':')),
            _ => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_host = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
        if !host.chars().all(is_host) {
            return Err(format!("{host:?} is not a host"));
        }
        let default = if tls.is_some() { 2376 } else { 2375 };
        let port = match port.filter(|port| !port.is_empty()) {
            Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
            None => default,
        };
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self::Tcp {
            host: host.to_string(),
            port,
            tls,
        })
    }

    fn ssh(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| e.to_string())?;
        let name = match url.host_str() {
            Some(name) if !name.is_empty() => name.trim_matches(['[', ']']).to_string(),
            _ => return Err("it has no host".into()),
        };
        if url.password().is_some() {
            return Err("a password is not supported; use a key or an agent".into());
        }
        let user = Some(url.username()).filter(|user| !user.is_empty());
        // They become words of command lines, here and on the remote host.
        if name.starts_with('-') || user.is_some_and(|user| user.starts_with('-')) {
            return Err("host and user must not begin with a dash".into());
        }
        let socket = Some(url.path()).filter(|path| !matches!(*path, "" | "/"));
        if socket.is_some_and(|path| !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))) {
            return Err("the socket's path has shell metacharacters".into());
        }
        Ok(Self::Ssh {
            user: user.map(str::to_string),
            host: name,
            port: url.port(),
            socket: socket.map(str::to_string),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh {
                user,
                host,
                port,
                socket,
            } => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                match host.contains(':') {
                    true => write!(f, "[{host}]")?,
                    false => f.write_str(host)?,
                }
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or(""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_docker_host_is_read_as_docker_reads_it() {
        for (text, address) in [
            ("localhost:2375", "tcp://localhost:2375"),
            ("127.0.0.1:4243", "tcp://127.0.0.1:4243"),
            (":2375", "tcp://localhost:2375"),
            (":", "tcp://localhost:2375"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:4243", "tcp://localhost:4243"),
            ("engine.example", "tcp://engine.example:2375"),
            ("tcp://engine_1:2375/", "tcp://engine_1:2375"),
            ("[::1]", "tcp://[::1]:2375"),
            ("[::1]:", "tcp://[::1]:2375"),
            ("tcp://[fe80::1%eth0]:4243", "tcp://[fe80::1%eth0]:4243"),
            (" tcp://h:1\n", "tcp://h:1"),
            ("/run/docker.sock", "unix:///run/docker.sock"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
            ("ssh://me@h:22/run/x.sock", "ssh://me@h:22/run/x.sock"),
        ] {
            assert_eq!(Address::parse(text, None).unwrap().to_string(), address, "{text:?}");
        }
        let tls = TlsFiles { ca: None, client: None };
        assert_eq!(Address::parse("far", Some(tls)).unwrap().to_string(), "tcp://far:2376");
    }

    #[test]
    fn an_address_that_docker_refuses_or_that_is_not_supported_is_refused() {
        for host in [
            "unix://relative",
            "npipe:////./pipe/x",
            "tcp://h:1/p",
            "ssh://u:pw@h",
            "ssh://-oProxyCommand=x/",
            "ssh://-l@h",
            "ssh://h/a$(x)",
            "h:1:2",
            "h:port",
            "h:65536",
            "::1:2375",
            "[::1",
            "[::1]2375",
            "tcp://u@h:1",
            "tcp://h h:1",
            "./docker.sock",
            "http://h:1",
        ] {
            assert!(Address::parse(host, None).is_err(), "{host} was taken");
        }
    }
}
