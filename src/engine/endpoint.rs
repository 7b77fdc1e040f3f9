//! Selects the engine's [`Endpoint`] from the environment and docker's configuration.
//!
//! The order is the docker CLI's: `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of the docker configuration,
//! the default socket.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::address::{Address, DEFAULT_SOCKET};
use crate::oci::docker_config;

const DEFAULT_CONTEXT: &str = "default";

/// PEM files named as by the docker CLI. Without a CA the system's CAs are trusted; client certificates are optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    /// Client certificate chain and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// An address and the setting that it comes from, so that errors can name the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The variable `DOCKER_HOST`.
    DockerHost,
    /// A docker context of this name.
    Context(String),
    /// A `[[builder]]` of build.toml, by its name.
    Builder(String),
    /// No setting: the default socket.
    Default,
}

/// The inputs of the selection; [`Settings::from_env`] reads them from this process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    pub docker_cert_path: Option<PathBuf>,
    pub tls_verify: bool,
    /// `DOCKER_CONFIG`, or `.docker` in the home directory.
    pub config_dir: Option<PathBuf>,
}

impl Settings {
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            docker_host: var("DOCKER_HOST"),
            docker_context: var("DOCKER_CONTEXT"),
            docker_cert_path: var("DOCKER_CERT_PATH").map(PathBuf::from),
            tls_verify: var("DOCKER_TLS_VERIFY").is_some(),
            config_dir: docker_config::directory(),
        }
    }
}

impl Endpoint {
    /// Whether the engine's files are on this machine, judged by a local socket. (The socket may be forwarded; this
    /// cannot be detected.)
    pub fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    pub fn from_env() -> Result<Self, EndpointError> {
        Self::choose(&Settings::from_env())
    }

    pub fn choose(settings: &Settings) -> Result<Self, EndpointError> {
        if let Some(host) = &settings.docker_host {
            let tls = settings.tls_verify.then(|| {
                let dir = settings.docker_cert_path.clone().or(settings.config_dir.clone());
                TlsFiles::in_dir(&dir.unwrap_or_default())
            });
            return Ok(Self {
                address: Address::parse(host, tls)?,
                origin: Origin::DockerHost,
            });
        }
        let context = match &settings.docker_context {
            Some(name) => Some(name.clone()),
            None => current_context(settings)?,
        };
        match context.filter(|name| name != DEFAULT_CONTEXT) {
            Some(name) => from_context(settings, name),
            None => Ok(Self {
                address: Address::Unix(DEFAULT_SOCKET.into()),
                origin: Origin::Default,
            }),
        }
    }
}

impl TlsFiles {
    /// The existing files among `ca.pem`, `cert.pem` and `key.pem`.
    fn in_dir(dir: &Path) -> Self {
        let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        Self {
            ca: file("ca.pem"),
            client: file("cert.pem").zip(file("key.pem")),
        }
    }
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

fn current_context(settings: &Settings) -> Result<Option<String>, EndpointError> {
    let Some(path) = settings.config_dir.as_ref().map(|dir| dir.join("config.json")) else {
        return Ok(None);
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(EndpointError::unreadable(&path, e)),
    };
    // Docker reads the first document; an empty file has none.
    let document = serde_json::Deserializer::from_slice(&text)
        .into_iter::<ConfigFile>()
        .next();
    let config = document.transpose().map_err(|e| EndpointError::unreadable(&path, e))?;
    Ok(config
        .and_then(|config| config.current_context)
        .filter(|name| !name.is_empty()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextMeta {
    endpoints: std::collections::BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    /// Without it, docker uses the default socket.
    #[serde(rename = "Host")]
    host: Option<String>,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The docker CLI stores a context under the SHA-256 of its name.
fn from_context(settings: &Settings, name: String) -> Result<Endpoint, EndpointError> {
    let contexts = settings.config_dir.clone().unwrap_or_default().join("contexts");
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let path = contexts.join("meta").join(&id).join("meta.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(EndpointError::NoContext { name, path }),
        Err(e) => return Err(EndpointError::unreadable(&path, e)),
    };
    let meta: ContextMeta = serde_json::from_slice(&text).map_err(|e| EndpointError::unreadable(&path, e))?;
    let Some(docker) = meta.endpoints.get("docker") else {
        return Err(EndpointError::unreadable(&path, "it has no docker endpoint"));
    };
    if docker.skip_tls_verify {
        return Err(EndpointError::SkipsVerification(name));
    }
    let tls_dir = contexts.join("tls").join(&id).join("docker");
    let tls = tls_dir.is_dir().then(|| TlsFiles::in_dir(&tls_dir));
    Ok(Endpoint {
        address: Address::parse(docker.host.as_deref().unwrap_or_default(), tls)?,
        origin: Origin::Context(name),
    })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match &self.origin {
            Origin::DockerHost => f.write_str(" (from DOCKER_HOST)"),
            Origin::Context(name) => write!(f, " (docker context {name:?})"),
            Origin::Builder(name) => write!(f, " (builder {name:?})"),
            Origin::Default => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("parsing the engine's address {host:?}: {reason}")]
    Host { host: String, reason: String },
    #[error(
        "no docker context {name:?} ({path} does not exist)\nhelp: see `docker context ls`, \
         or choose another with DOCKER_CONTEXT or DOCKER_HOST",
        path = path.display()
    )]
    NoContext { name: String, path: PathBuf },
    #[error(
        "docker context {0:?} skips the verification of the engine's certificate, which is not supported\n\
         help: add the engine's CA with docker context update {0:?} --docker host=…,ca=FILE"
    )]
    SkipsVerification(String),
    #[error("reading {path}: {reason}", path = path.display())]
    Unreadable { path: PathBuf, reason: String },
}

impl EndpointError {
    fn unreadable(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Unreadable {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(dir: &Path, name: &str, host: &str, skip: bool) {
        let id = hex::encode(Sha256::digest(name.as_bytes()));
        let meta = dir.join("contexts/meta").join(id);
        std::fs::create_dir_all(&meta).unwrap();
        let text = serde_json::json!({
            "Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}}
        });
        std::fs::write(meta.join("meta.json"), text.to_string()).unwrap();
    }

    #[test]
    fn nothing_set_means_the_default_socket() {
        let endpoint = Endpoint::choose(&Settings::default()).unwrap();
        assert_eq!(endpoint.to_string(), "unix:///var/run/docker.sock");
    }

    #[test]
    fn docker_host_beats_docker_context_beats_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"lab","auths":{}}"#).unwrap();
        context(dir.path(), "lab", "ssh://me@lab:2222", false);
        context(dir.path(), "other", "unix:///other.sock", false);
        let mut settings = Settings {
            config_dir: Some(dir.path().into()),
            ..Settings::default()
        };
        let chosen = |s: &Settings| Endpoint::choose(s).unwrap().to_string();
        assert_eq!(chosen(&settings), r#"ssh://me@lab:2222 (docker context "lab")"#);
        settings.docker_context = Some("other".into());
        assert_eq!(chosen(&settings), r#"unix:///other.sock (docker context "other")"#);
        settings.docker_host = Some("tcp://[::1]:99".into());
        assert_eq!(chosen(&settings), "tcp://[::1]:99 (from DOCKER_HOST)");
        settings.docker_host = None;
        settings.docker_context = Some("default".into());
        assert_eq!(chosen(&settings), "unix:///var/run/docker.sock");
    }

    #[test]
    fn a_context_without_a_host_is_the_default_socket_and_its_name_may_have_any_character() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.b_c+d-1", "../x", "ä \"b\" $(c)"] {
            context(dir.path(), name, "", false);
            let meta = dir.path().join("contexts/meta").join(hex::encode(Sha256::digest(name)));
            for docker in ["{}", r#"{"Host": null}"#, r#"{"Host": "", "SkipTLSVerify": false}"#] {
                let text = format!(r#"{{"Name": "x", "Metadata": {{}}, "Endpoints": {{"docker": {docker}}}}}"#);
                std::fs::write(meta.join("meta.json"), text).unwrap();
                let settings = Settings {
                    config_dir: Some(dir.path().into()),
                    docker_context: Some(name.into()),
                    ..Settings::default()
                };
                let endpoint = Endpoint::choose(&settings).unwrap();
                assert_eq!(
                    endpoint.address,
                    Address::Unix(DEFAULT_SOCKET.into()),
                    "{name}: {docker}"
                );
                assert_eq!(endpoint.origin, Origin::Context(name.into()));
            }
        }
    }

    #[test]
    fn a_configuration_without_a_context_is_read_as_docker_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            config_dir: Some(dir.path().into()),
            ..Settings::default()
        };
        for text in ["", "{}", r#"{"currentContext": null}"#, r#"{"currentContext": ""} x"#] {
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            assert_eq!(Endpoint::choose(&settings).unwrap().origin, Origin::Default, "{text:?}");
        }
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(
            Endpoint::choose(&settings)
                .unwrap_err()
                .to_string()
                .contains("config.json")
        );
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        context(dir.path(), "far", "tcp://far:2376", false);
        let id = hex::encode(Sha256::digest(b"far"));
        let tls = dir.path().join("contexts/tls").join(id).join("docker");
        std::fs::create_dir_all(&tls).unwrap();
        std::fs::write(tls.join("ca.pem"), "").unwrap();
        let endpoint = Endpoint::choose(&Settings {
            config_dir: Some(dir.path().into()),
            docker_context: Some("far".into()),
            ..Settings::default()
        })
        .unwrap();
        let Address::Tcp { tls: Some(files), .. } = endpoint.address else {
            panic!("no TLS in {endpoint:?}");
        };
        assert_eq!((files.ca, files.client), (Some(tls.join("ca.pem")), None));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        context(dir.path(), "lax", "tcp://far:2376", true);
        let settings = |name: &str| Settings {
            config_dir: Some(dir.path().into()),
            docker_context: Some(name.into()),
            ..Settings::default()
        };
        assert!(matches!(
            Endpoint::choose(&settings("lax")),
            Err(EndpointError::SkipsVerification(_))
        ));
        assert!(matches!(
            Endpoint::choose(&settings("gone")),
            Err(EndpointError::NoContext { .. })
        ));
    }
}
