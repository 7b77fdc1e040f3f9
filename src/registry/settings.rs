//! Creates a client per registry from `[[registries]]` of build.toml and the flags.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::client::{Client, Patience};
use super::error::RegistryError;
use super::repository::{Access, Repository};
use super::tls;
use crate::config::registries::RegistryPolicy;
use crate::oci::RepositoryName;
use crate::progress::SharedProgress;

const LOCALHOST: &str = "localhost";

/// Flags that apply to every registry of a run.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub plain_http: bool,
    pub ca: Option<PathBuf>,
}

/// Creates repositories; those in one registry share its connections and tokens.
pub struct Registries {
    policies: Vec<RegistryPolicy>,
    root: PathBuf,
    overrides: Overrides,
    patience: Patience,
    /// Receives the messages about retries.
    progress: SharedProgress,
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

impl Registries {
    /// Relative paths of the policies are resolved against `root`.
    pub fn new(policies: &[RegistryPolicy], root: &Path, overrides: Overrides, progress: SharedProgress) -> Self {
        Self {
            policies: policies.to_vec(),
            root: root.to_path_buf(),
            overrides,
            patience: Patience::default(),
            progress,
            clients: Mutex::default(),
        }
    }

    /// Replaces the default retries of transient failures.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub fn repository(&self, name: &RepositoryName, access: Access) -> Result<Repository, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.get(&name.registry) {
            Some(client) => Arc::clone(client),
            None => {
                let client = Arc::new(self.connect(&name.registry)?);
                clients.insert(name.registry.clone(), Arc::clone(&client));
                client
            }
        };
        Ok(Repository::new(client, &name.path, access))
    }

    /// Whether a tag must not move once it is set.
    pub fn is_immutable(&self, name: &RepositoryName, tag: &str) -> bool {
        self.policy(&name.registry).is_some_and(|p| {
            p.immutable
                .iter()
                .any(|pattern| pattern.matches(&format!("{}:{tag}", name.path)))
        })
    }

    /// Whether `prune` may remove a tag.
    pub fn is_temporary(&self, name: &RepositoryName, tag: &str) -> bool {
        self.policy(&name.registry).is_some_and(|p| {
            p.temporary
                .iter()
                .any(|pattern| pattern.matches(&format!("{}:{tag}", name.path)))
        })
    }

    /// The first matching entry, as with the series of build.toml.
    fn policy(&self, host: &str) -> Option<&RegistryPolicy> {
        self.policies.iter().find(|policy| policy.host.matches(host))
    }

    fn connect(&self, host: &str) -> Result<Client, RegistryError> {
        let policy = self.policy(host);
        let setup = |what: String, reason: String| RegistryError::Setup {
            host: host.to_string(),
            what,
            reason,
        };
        let read = |path: &Path| {
            std::fs::read(self.root.join(path)).map_err(|e| setup(path.display().to_string(), e.to_string()))
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("obgp-build/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(std::time::Duration::from_secs(15))
            .redirect(super::client::redirects())
            // Digests are of the bytes on the wire. Features of other crates enable decompression.
            .no_gzip()
            .no_deflate();
        if is_loopback(host_only(host)) {
            // A proxy's loopback is the proxy itself; other registry clients skip the proxy too.
            builder = builder.no_proxy();
        }
        if host_only(host) == LOCALHOST {
            // RFC 6761, section 6.3. The system may know only one of them; the port is the URL's.
            let both = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            builder = builder.resolve_to_addrs(LOCALHOST, &both);
        }
        let ca = self.overrides.ca.as_ref().or(policy.and_then(|p| p.ca.as_ref()));
        let named = match ca {
            Some(path) => tls::certificates(&read(path)?).map_err(|e| setup(path.display().to_string(), e))?,
            None => Vec::new(),
        };
        let identity = match policy.map(|p| (&p.client_cert, &p.client_key)) {
            Some((Some(cert), Some(key))) => Some(tls::Identity {
                chain: tls::certificates(&read(cert)?).map_err(|e| setup(cert.display().to_string(), e))?,
                key: tls::private_key(&read(key)?).map_err(|e| setup(key.display().to_string(), e))?,
            }),
            Some((None, None)) | None => None,
            Some(_) => {
                let reason = "client-cert and client-key belong together".to_string();
                return Err(setup("the client certificate".into(), reason));
            }
        };
        let tls = tls::config(named, identity).map_err(|e| setup("these TLS settings".into(), e.to_string()))?;
        let allowed = self.overrides.plain_http || policy.is_some_and(|p| p.plain_http);
        let http = builder
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|e| setup("these TLS settings".into(), e.to_string()))?;
        let scheme = match (allowed, is_loopback(host_only(host))) {
            (true, _) => Scheme::PlainHttp,
            (false, true) => Scheme::Either,
            (false, false) => Scheme::Tls,
        };
        Ok(Client::new(
            host,
            http,
            scheme,
            self.patience,
            Arc::clone(&self.progress),
        ))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Tls,
    PlainHttp,
    /// Plain HTTP if the registry speaks it, else TLS: loopback traffic cannot be intercepted.
    Either,
}

fn host_only(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == LOCALHOST || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_each_spelling() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host_only(host)), "{host}");
        }
        for host in ["localhost.example.com:80", "128.0.0.1", "reg:5000"] {
            assert!(!is_loopback(host_only(host)), "{host}");
        }
    }
}
