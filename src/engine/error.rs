//! What can go wrong between us and the engine, told to the person with what to try.

use std::io;

use super::ApiVersion;
use super::endpoint::{Address, Endpoint, EndpointError, Origin};
use crate::util::errors;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("cannot reach the Docker engine at {endpoint}: {reason}\n{hint}")]
    Unreachable {
        endpoint: String,
        reason: String,
        hint: &'static str,
    },
    #[error(
        "the Docker engine at {endpoint} is {version} (API {api}): too old. \
         20.10 (API 1.41) is the oldest that is supported; upgrade it or set DOCKER_HOST to another"
    )]
    TooOld {
        endpoint: String,
        version: String,
        api: ApiVersion,
    },
    #[error("what answers at {endpoint} is no Docker engine: it gives {api:?} as its API version")]
    NotDocker { endpoint: String, api: String },
    #[error(
        "the buildkitd at {endpoint} is too old: it takes no bases from us. BuildKit 0.11 is the oldest that does; \
         upgrade it, or name a Docker engine"
    )]
    OldBuildkitd { endpoint: String },
    #[error("the buildkitd at {endpoint}, {doing}: {reason}")]
    Buildkitd {
        endpoint: String,
        doing: String,
        reason: String,
    },
    #[error(
        "the engine at {endpoint} does not speak BuildKit: it answered {path} with status {status} ({said}). \
         Podman's Docker API has no BuildKit, and API proxies must let connection upgrades through; \
         point DOCKER_HOST at a Docker engine, 20.10 or later"
    )]
    NoBuildKit {
        endpoint: String,
        path: String,
        status: u16,
        said: String,
    },
    /// `status` is the HTTP status, where the engine answered at all.
    #[error("the engine at {endpoint}, {doing}: {reason}")]
    Api {
        endpoint: String,
        doing: String,
        status: Option<u16>,
        reason: String,
        /// The connection broke or the engine was overloaded: the same may work in a moment.
        transient: bool,
    },
}

impl EngineError {
    /// Whether trying again later, with nothing changed, may work.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Api { transient: true, .. } | Self::Buildkitd { .. })
    }

    /// For a connection to a buildkitd, there being nothing else that breaks.
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

    /// For the first question to an engine: whatever goes wrong with it, the address is to be looked at. A refused client
    /// certificate shows only here, TLS 1.3 has no earlier answer to it.
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
            Error::RequestTimeoutError => (None, "no answer in time".to_string(), true),
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

    /// For a connection that broke under way.
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
            "You may not use its socket: run as root, or join its group (sudo usermod -aG docker $USER, then log in again)."
        }
        (Address::Unix(_), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) if !of_builder => {
            "Is it installed and running? Try `sudo systemctl start docker`, or set DOCKER_HOST to the engine you mean."
        }
        (Address::Ssh { .. }, _) => {
            "Try `ssh HOST docker version` by hand: the login must work without a password, and docker must be on the far side's PATH."
        }
        (Address::Tcp { tls: Some(_), .. }, _) if of_builder => {
            "Look at the builder's endpoint in build.toml, and at the files that its ca, cert and key name."
        }
        (Address::Tcp { .. }, _) if of_builder => {
            "Look at the builder's endpoint in build.toml; if the engine speaks TLS there, give the builder ca, cert and key."
        }
        _ if of_builder => "Is it running? Look at the builder's endpoint in build.toml.",
        (Address::Tcp { tls: Some(_), .. }, _) => {
            "Look at the address and at ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH (or the docker context)."
        }
        (Address::Tcp { .. }, _) => {
            "Look at the address; if the engine speaks TLS there, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH."
        }
        _ => "Set DOCKER_HOST to the engine you mean.",
    }
}

/// The innermost I/O error: its kind decides the hint.
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
