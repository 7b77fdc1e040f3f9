//! Errors of the engine client, with hints.

use std::io;

use super::ApiVersion;
use super::address::Address;
use super::endpoint::{Endpoint, EndpointError, Origin};
use crate::util::errors;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("cannot reach the Docker engine at {endpoint}: {reason}\nhelp: {hint}")]
    Unreachable {
        endpoint: String,
        reason: String,
        hint: &'static str,
    },
    #[error(
        "the Docker engine at {endpoint} is {version} (API {api}): too old\n\
         help: upgrade it to 20.10 (API 1.41) or later, or set DOCKER_HOST to another engine"
    )]
    TooOld {
        endpoint: String,
        version: String,
        api: ApiVersion,
    },
    #[error("the server at {endpoint} is not a Docker engine: its API version is {api:?}")]
    NotDocker { endpoint: String, api: String },
    #[error(
        "the buildkitd at {endpoint} is too old: it does not accept base images from a client\n\
         help: upgrade it to BuildKit 0.11 or later, or use a Docker engine"
    )]
    OldBuildkitd { endpoint: String },
    #[error("the buildkitd at {endpoint}, {doing}: {reason}")]
    Buildkitd {
        endpoint: String,
        doing: String,
        reason: String,
    },
    #[error(
        "the engine at {endpoint} does not speak BuildKit: {path} returned status {status} ({message})\n\
         help: point DOCKER_HOST at a Docker engine, 20.10 or later; Podman's Docker API has no BuildKit, \
         and API proxies must allow connection upgrades"
    )]
    NoBuildKit {
        endpoint: String,
        path: String,
        status: u16,
        message: String,
    },
    /// `status` is the HTTP status, if the engine answered.
    #[error("the engine at {endpoint}, {doing}: {reason}")]
    Api {
        endpoint: String,
        doing: String,
        status: Option<u16>,
        reason: String,
        /// The connection broke or the engine was overloaded: a retry may succeed.
        transient: bool,
    },
}

impl EngineError {
    /// Whether a retry without changes may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Api { transient: true, .. } | Self::Buildkitd { .. })
    }

    /// Any error of a connection to a buildkitd.
    pub(crate) fn buildkitd(endpoint: &Endpoint, doing: &str, source: &(dyn std::error::Error + 'static)) -> Self {
        Self::Buildkitd {
            endpoint: endpoint.to_string(),
            doing: doing.to_string(),
            reason: errors::root_cause(source),
        }
    }

    pub(super) fn unreachable(endpoint: &Endpoint, source: io::Error) -> Self {
        Self::Unreachable {
            hint: hint(endpoint, source.kind()),
            reason: source.to_string(),
            endpoint: endpoint.to_string(),
        }
    }

    /// For the first request to an engine: every failure may be caused by the address. TLS 1.3 reports a rejected
    /// client certificate only here.
    pub(super) fn first_contact(endpoint: &Endpoint, source: bollard::errors::Error) -> Self {
        match Self::api(endpoint, "", source) {
            Self::Api { reason, .. } => Self::unreachable(endpoint, io::Error::other(reason)),
            other => other,
        }
    }

    pub(super) fn api(endpoint: &Endpoint, doing: impl Into<String>, source: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        if let Error::HyperLegacyError { err } = &source
            && err.is_connect()
            && let Some(cause) = io_cause(err)
        {
            return Self::unreachable(endpoint, io::Error::new(cause.kind(), cause.to_string()));
        }
        let (status, reason, transient) = match &source {
            Error::DockerResponseServerError { status_code, message } => {
                (Some(*status_code), message.clone(), *status_code >= 502)
            }
            Error::RequestTimeoutError => (None, "the request timed out".to_string(), true),
            Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
                return Self::broken(endpoint, doing, &source);
            }
            other => (None, other.to_string(), false),
        };
        Self::Api {
            endpoint: endpoint.to_string(),
            doing: doing.into(),
            status,
            reason: reason.trim().to_string(),
            transient,
        }
    }

    /// For a connection that broke during a request.
    pub(super) fn broken(
        endpoint: &Endpoint,
        doing: impl Into<String>,
        source: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self::Api {
            endpoint: endpoint.to_string(),
            doing: doing.into(),
            status: None,
            reason: errors::root_cause(source),
            transient: true,
        }
    }
}

fn hint(endpoint: &Endpoint, kind: io::ErrorKind) -> &'static str {
    let of_builder = matches!(endpoint.origin, Origin::Builder(_));
    match (&endpoint.address, kind) {
        (Address::Unix(_), io::ErrorKind::PermissionDenied) => {
            "run as root, or join the socket's group (sudo usermod -aG docker $USER, then log in again)"
        }
        (Address::Unix(_), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) if !of_builder => {
            "install and start it (sudo systemctl start docker), or set DOCKER_HOST to another engine"
        }
        (Address::Ssh { .. }, _) => {
            "test with `ssh HOST docker version`: the login must work without a password, and docker must be on the remote PATH"
        }
        (Address::Tcp { tls: Some(_), .. }, _) if of_builder => {
            "check the builder's endpoint in build.toml, and the files of its ca, cert and key"
        }
        (Address::Tcp { .. }, _) if of_builder => {
            "check the builder's endpoint in build.toml; if the engine uses TLS, set the builder's ca, cert and key"
        }
        _ if of_builder => "check that it runs, and the builder's endpoint in build.toml",
        (Address::Tcp { tls: Some(_), .. }, _) => {
            "check the address, and ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH (or the docker context)"
        }
        (Address::Tcp { .. }, _) => {
            "check the address; if the engine uses TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
        }
        _ => "set DOCKER_HOST to the engine's address",
    }
}

/// The innermost I/O error, whose kind selects the hint.
fn io_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    errors::chain(error).filter_map(|cause| cause.downcast_ref()).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_try_fits_what_went_wrong() {
        let told = |address: &str, kind: io::ErrorKind| {
            let endpoint = Endpoint {
                address: Address::parse(address, None).unwrap(),
                origin: Origin::Default,
            };
            EngineError::unreachable(&endpoint, kind.into()).to_string()
        };
        assert!(told("unix:///s", io::ErrorKind::PermissionDenied).contains("usermod -aG docker"));
        assert!(told("unix:///s", io::ErrorKind::NotFound).contains("systemctl start docker"));
        assert!(told("ssh://h", io::ErrorKind::Other).contains("ssh HOST docker version"));
        assert!(told("tcp://h", io::ErrorKind::ConnectionRefused).contains("DOCKER_TLS_VERIFY"));
    }
}
