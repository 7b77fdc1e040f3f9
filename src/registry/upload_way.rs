//! The requests in which a registry takes the bytes of a blob, learned from its refusals.

use std::fmt;

use reqwest::StatusCode;

use super::error::RegistryError;

/// Proxies in front of registries buffer a whole request body, so a broken connection costs one chunk. Larger chunks
/// are faster: some registries write each to disk before they answer.
const CHUNK: u64 = 32 << 20;
/// Each refusal of a chunk divides its length by this: 32 MiB, 4 MiB (the limit of ghcr.io), 512 KiB (a proxy's is 1 MiB).
const DIVISOR: u64 = 8;
const SHORTEST: u64 = 512 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// PATCH requests of this length, then a PUT with the rest.
    Chunks(u64),
    /// One PUT without a `Content-Range`.
    Whole,
}

impl Default for Way {
    fn default() -> Self {
        Self::Chunks(CHUNK)
    }
}

impl Way {
    /// The length of the next request, and whether it closes the upload, if `left` bytes are to be sent.
    pub fn next_request(self, left: u64, shortest_chunk: u64) -> (u64, bool) {
        match self {
            Self::Chunks(chunk) => {
                let length = chunk.max(shortest_chunk).min(left);
                (length, length == left)
            }
            Self::Whole => (left, true),
        }
    }

    /// The way to try if the registry refused a request at this offset; `None` if another way would not help.
    pub fn after_refusal(self, error: &RegistryError, offset: u64, closing: bool) -> Option<Self> {
        let status = error.status().filter(|_| !error.is_transient())?;
        match (self, status) {
            (Self::Whole, _) => None,
            (_, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::RANGE_NOT_SATISFIABLE) => {
                Some(self.smaller().unwrap_or(Self::Whole))
            }
            // It refuses the first PATCH of an upload that it began.
            _ => (!closing && offset == 0).then_some(Self::Whole),
        }
    }

    /// The way to try after all retries, if the registry itself fails.
    pub fn last_resort(self, error: &RegistryError) -> Option<Self> {
        (self != Self::Whole && error.is_failure_of_the_server()).then_some(Self::Whole)
    }

    pub fn with_smaller_chunks(self) -> Self {
        self.smaller().unwrap_or(self)
    }

    fn smaller(self) -> Option<Self> {
        match self {
            Self::Chunks(chunk) if chunk > SHORTEST => Some(Self::Chunks(chunk / DIVISOR)),
            _ => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunks(chunk) => write!(f, "uploading in chunks of {} KiB", chunk >> 10),
            Self::Whole => f.write_str("uploading in one request"),
        }
    }
}
