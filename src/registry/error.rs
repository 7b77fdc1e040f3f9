//! What can go wrong between us and a registry, told to the person with what to try.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::util::errors;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("registry {host}: cannot use {what}: {reason}")]
    Setup { host: String, what: String, reason: String },
    #[error("registry {host}, {doing}: {reason}{}", hint(reason))]
    Connection {
        host: String,
        doing: String,
        reason: String,
    },
    #[error("registry {host}, {doing}: access is denied{}. {}", told(said), login_hint(host, *.logged_in))]
    Denied {
        host: String,
        doing: String,
        said: String,
        /// Whether credentials were sent.
        logged_in: bool,
    },
    #[error("registry {host}: its token service {realm} gives no token: {reason}")]
    Token {
        host: String,
        realm: String,
        reason: String,
        status: Option<StatusCode>,
    },
    #[error("registry {host}, {doing}: it answered {status}{}", told(said))]
    Status {
        host: String,
        doing: String,
        status: StatusCode,
        said: String,
        retry_after: Option<Duration>,
    },
    /// The registry does what the distribution specification excludes.
    #[error("registry {host}, {doing}: {reason}")]
    Protocol {
        host: String,
        doing: String,
        reason: String,
    },
    #[error(
        "registry {host}: what it serves as {expected} has the digest {found}: it was changed on the way, or in the registry"
    )]
    WrongDigest {
        host: String,
        expected: String,
        found: String,
    },
    #[error("{repository} has no {what}")]
    NotFound { repository: String, what: String },
    #[error("cannot read the blob {digest}: {reason}")]
    Source { digest: String, reason: String },
}

impl RegistryError {
    /// Whether the same may work in a moment: broken connections, overload (408, 429) and failures of the server.
    pub fn is_transient(&self) -> bool {
        match self {
            // What has a hint is a matter of settings.
            Self::Connection { reason, .. } => hint(reason).is_empty(),
            Self::Status { status, .. } => transient(*status),
            Self::Token { status, .. } => status.is_none_or(transient),
            _ => false,
        }
    }

    /// Whether the registry itself fails at this, rather than being out of reach or busy: proxies say 502 to 504 for it.
    pub fn is_failure_of_the_server(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// How long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn connection(host: &str, doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Connection {
            host: host.to_string(),
            doing: doing.to_string(),
            reason: causes(error),
        }
    }
}

fn transient(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// The innermost causes, which name the fact: `reqwest` stops at "error sending request".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = errors::chain(error).map(ToString::to_string).collect();
    let innermost = texts.pop().unwrap_or_default();
    match texts.iter().rev().find(|text| text.contains("connect")) {
        Some(connecting) if !innermost.contains("onnect") => format!("{connecting}: {innermost}"),
        _ => innermost,
    }
}

/// What to try about settings that do not fit the registry; empty for what may pass by itself.
fn hint(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        ". Its certificate is of no authority known here: name it with --registry-ca FILE, or as `ca` in build.toml's [[registries]]"
    } else if reason.contains("CaUsedAsEndEntity") {
        ". It shows the certificate of an authority as its own: name exactly that one with --registry-ca FILE, or as `ca` in build.toml's [[registries]]"
    } else if reason.contains("invalid peer certificate") {
        ". --registry-ca says whose certificates are trusted; the one that it shows has to be valid today, for this host and as a server's"
    } else if reason.contains("CertificateRequired")
        || reason.contains("BadCertificate")
        || reason.contains("HandshakeFailure")
    {
        ". It may want a client certificate: `client-cert` and `client-key` in build.toml's [[registries]]"
    } else if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
        ". It does not speak TLS; if plain http is meant, say --plain-http, or `plain-http = true` in build.toml's [[registries]]"
    } else {
        ""
    }
}

fn login_hint(host: &str, logged_in: bool) -> String {
    if logged_in {
        "The login that docker has for it does not allow this".into()
    } else {
        format!("Log in first: docker login {host}")
    }
}

fn told(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    }
}

/// What an error's body says (distribution-spec, "Error Codes"), in one line; other bodies' beginning.
pub(super) fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        detail: serde_json::Value,
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else {
        let text = String::from_utf8_lossy(body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        return line.chars().take(200).collect();
    };
    let one = |error: One| {
        let detail = match error.detail {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => format!(": {text}"),
            other => format!(": {other}"),
        };
        format!("{} {}{detail}", error.code, error.message).trim().to_string()
    };
    envelope.errors.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_told() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no","detail":{"x":1}},{"code":"UNKNOWN"}]}"#;
        assert_eq!(said(body), r#"DENIED no: {"x":1}; UNKNOWN"#);
        assert_eq!(said(b"<html>\n 502 </html>"), "<html> 502 </html>");
    }

    #[test]
    fn certificates_that_are_refused_are_not_tried_again() {
        use rustls::CertificateError::{ApplicationVerificationFailure, BadSignature, Expired, NotValidForName};
        let connection = |error: rustls::Error| RegistryError::connection("h", "d", &error);
        for certificate in [BadSignature, Expired, NotValidForName, ApplicationVerificationFailure] {
            let error = connection(rustls::Error::InvalidCertificate(certificate));
            assert!(
                !error.is_transient() && error.to_string().contains("--registry-ca"),
                "{error}"
            );
        }
        assert!(connection(rustls::Error::General("the line broke".into())).is_transient());
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        for (status, expected) in [
            (408, true),
            (429, true),
            (500, true),
            (503, true),
            (400, false),
            (404, false),
            (501, false),
        ] {
            assert_eq!(transient(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
