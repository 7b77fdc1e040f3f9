//! What can go wrong between two registries, told to the person with what to try.

use std::path::PathBuf;
use std::time::Duration;

use super::reference::ReferenceError;

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("there is no image to copy: the list (IMAGE_SYNC_LIST) is empty")]
    NoImages,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("cannot read {path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("credentials for {host} in the Docker configuration: {reason}")]
    Credentials { host: String, reason: String },
    #[error("{host}, {doing}: {reason}{hint}")]
    Transport {
        host: String,
        doing: String,
        reason: String,
        hint: &'static str,
        transient: bool,
    },
    #[error("{host}, {doing}: status {status}{said}{hint}")]
    Status {
        host: String,
        doing: String,
        status: u16,
        /// The registry's own words, with what separates them from the rest; or nothing.
        said: String,
        hint: &'static str,
        /// The registry's wish.
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
                ". Is its certificate one that --ca-file or SSL_CERT_FILE knows, or does it speak plain HTTP (--plain-http)?",
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
