//! Errors of the registry client, with hints.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::util::errors;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("registry {host}, using {what}: {reason}")]
    Setup { host: String, what: String, reason: String },
    #[error("registry {host}, {doing}: {reason}{}", hint(reason))]
    Connection {
        host: String,
        doing: String,
        reason: String,
    },
    #[error("registry {host}, {doing}: access denied{}\nhelp: {help}", in_brackets(message))]
    Denied {
        host: String,
        doing: String,
        /// 401 or 403.
        status: StatusCode,
        message: String,
        help: String,
    },
    #[error("registry {host}, requesting a token from {realm}: {reason}{help}")]
    Token {
        host: String,
        realm: String,
        reason: String,
        status: Option<StatusCode>,
        /// Empty, or a line of its own.
        help: String,
    },
    #[error("registry {host}, {doing}: HTTP status {status}{}{}", in_brackets(message), status_hint(*status, message))]
    Status {
        host: String,
        doing: String,
        status: StatusCode,
        message: String,
        retry_after: Option<Duration>,
    },
    /// The registry violates the distribution specification.
    #[error("registry {host}, {doing}: {reason}")]
    Protocol {
        host: String,
        doing: String,
        reason: String,
    },
    #[error(
        "registry {host}, checking {expected}: the content has the digest {found}; it was changed in transit or in the registry"
    )]
    WrongDigest {
        host: String,
        expected: String,
        found: String,
    },
    /// A tag could not be removed; every tag points to what it did before.
    #[error("removing {reference}: {reason}; no tag was changed\nhelp: {help}")]
    NotRemoved {
        reference: String,
        reason: String,
        help: &'static str,
    },
    /// A tag could not be removed, and could not be set back.
    #[error(
        "removing {repository}:{tag}: {reason}; setting it back to {digest}: {source}\n\
         help: obgp-build promote {repository}@{digest} {repository}:{tag}"
    )]
    NotSetBack {
        repository: String,
        tag: String,
        digest: String,
        reason: String,
        source: Box<RegistryError>,
    },
    #[error(
        "removing {reference}: the registry also removed {others}, which have the same image; these were set again\n\
         help: remove the tag with the registry's own interface"
    )]
    OthersRemoved { reference: String, others: String },
    #[error("{repository} has no {what}")]
    NotFound { repository: String, what: String },
    #[error("reading the blob {digest}: {reason}")]
    Source { digest: String, reason: String },
}

impl RegistryError {
    /// Whether a retry may succeed: broken connections, overload (408, 429) and server errors.
    pub fn is_transient(&self) -> bool {
        match self {
            // Errors with a hint need other settings.
            Self::Connection { reason, .. } => hint(reason).is_empty(),
            Self::Status { status, .. } => transient(*status),
            Self::Token { status, .. } => status.is_none_or(transient),
            _ => false,
        }
    }

    /// The status of a response that refused a request.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } | Self::Denied { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the registry itself fails, rather than being unreachable or busy, for which proxies return 502 to 504.
    pub fn is_failure_of_the_server(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the registry refused the request for what it is: it did nothing, and will not.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Status { status, .. } => status.is_client_error() && !transient(*status),
            _ => false,
        }
    }

    /// The registry's `Retry-After`.
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

/// The innermost cause; `reqwest` alone prints "error sending request".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = errors::chain(error).map(ToString::to_string).collect();
    let innermost = texts.pop().unwrap_or_default();
    match texts.iter().rev().find(|text| text.contains("connect")) {
        Some(connecting) if !innermost.contains("onnect") => format!("{connecting}: {innermost}"),
        _ => innermost,
    }
}

const OF_TLS: &str = "\nhelp: it speaks TLS: leave out --plain-http, or `plain-http` in [[registries]] of build.toml";

/// What to try if the settings do not match the registry; empty for transient failures.
fn hint(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "\nhelp: trust its certificate authority with --registry-ca FILE, or `ca` in [[registries]] of build.toml"
    } else if reason.contains("CaUsedAsEndEntity") {
        "\nhelp: it uses a CA certificate as its own; trust that certificate with --registry-ca FILE, or `ca` in [[registries]] of build.toml"
    } else if reason.contains("invalid peer certificate") {
        "\nhelp: its certificate must be valid now, for this host and for servers; --registry-ca FILE adds a trusted authority"
    } else if reason.contains("CertificateRequired")
        || reason.contains("BadCertificate")
        || reason.contains("HandshakeFailure")
    {
        "\nhelp: it may require a client certificate: set `client-cert` and `client-key` in [[registries]] of build.toml"
    } else if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
        "\nhelp: it does not speak TLS; for plain HTTP use --plain-http, or `plain-http = true` in [[registries]] of build.toml"
    } else if reason.contains("invalid HTTP version") {
        // An alert of TLS in place of a status line.
        OF_TLS
    } else {
        ""
    }
}

/// What to try if the registry does not offer what the request needs.
fn status_hint(status: StatusCode, message: &str) -> &'static str {
    // Go's net/http, nginx.
    let of_tls = [
        "HTTP request to an HTTPS server",
        "plain HTTP request was sent to HTTPS",
    ];
    if of_tls.iter().any(|text| message.contains(text)) {
        OF_TLS
    } else if message.contains("NAME_UNKNOWN") {
        "\nhelp: the registry has no such repository and may not create it on a push (as Amazon ECR): create it there, or correct \
         the name"
    } else if status == StatusCode::METHOD_NOT_ALLOWED {
        "\nhelp: the registry does not allow this: it may be read-only (maintenance, a mirror or a proxy); use another registry, or \
         ask its administrator"
    } else {
        ""
    }
}

fn in_brackets(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

/// The message of an error body (distribution-spec, "Error Codes") on one line; for other bodies their start.
pub(super) fn message_of(body: &[u8]) -> String {
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
    fn the_registrys_message_is_in_the_error() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no","detail":{"x":1}},{"code":"UNKNOWN"}]}"#;
        assert_eq!(message_of(body), r#"DENIED no: {"x":1}; UNKNOWN"#);
        assert_eq!(message_of(b"<html>\n 502 </html>"), "<html> 502 </html>");
    }

    #[test]
    fn an_error_names_what_to_try() {
        let status = |status: u16, message: &str| {
            let error = RegistryError::Status {
                host: "h".into(),
                doing: "d".into(),
                status: StatusCode::from_u16(status).unwrap(),
                message: message.into(),
                retry_after: None,
            };
            error.to_string()
        };
        assert!(status(405, "UNSUPPORTED").contains("\nhelp: the registry does not allow this: it may be read-only"));
        assert!(status(400, "Client sent an HTTP request to an HTTPS server.").contains("leave out --plain-http"));
        assert!(status(404, "NAME_UNKNOWN no").contains("\nhelp: the registry has no such repository"));
        assert!(!status(404, "").contains("help"));
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
