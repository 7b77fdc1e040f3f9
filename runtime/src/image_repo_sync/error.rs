//! The errors of a copy between registries, with hints.

use std::path::PathBuf;
use std::time::Duration;

use super::reference::ReferenceError;

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("no image to copy: the list (IMAGE_SYNC_LIST) is empty")]
    NoImages,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("cannot read {path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot read the credentials for {host} in the Docker configuration: {reason}")]
    Credentials { host: String, reason: String },
    #[error("{host}, {doing}: {reason}{hint}")]
    Transport {
        host: String,
        doing: String,
        reason: String,
        hint: &'static str,
        transient: bool,
    },
    #[error("{host}, {doing}: status {status}{message}{hint}")]
    Status {
        host: String,
        doing: String,
        status: u16,
        /// The registry's message in parentheses after a space, or empty.
        message: String,
        hint: &'static str,
        /// The Retry-After header.
        retry_after: Option<Duration>,
    },
    #[error("{host}, {doing}: {problem}")]
    Answer {
        host: String,
        doing: String,
        problem: String,
    },
}

impl SyncError {
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { transient, .. } => *transient,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=599),
            _ => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub fn transport(host: &str, doing: &str, source: &ureq::Error) -> Self {
        let (hint, transient) = match source {
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => (
                "\nhelp: add its CA with --ca-file or SSL_CERT_FILE or, if it uses plain HTTP, set --plain-http",
                false,
            ),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::BadUri(_) => ("", false),
            ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => ("", false),
            _ => ("", true),
        };
        Self::Transport {
            host: host.to_string(),
            doing: doing.to_string(),
            reason: source.to_string(),
            hint,
            transient,
        }
    }

    pub fn answer(host: &str, doing: &str, problem: impl Into<String>) -> Self {
        Self::Answer {
            host: host.to_string(),
            doing: doing.to_string(),
            problem: problem.into(),
        }
    }
}
