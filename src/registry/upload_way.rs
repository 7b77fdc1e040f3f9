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
        match status {
            _ if self == Self::Whole => None,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::RANGE_NOT_SATISFIABLE => {
                Some(self.smaller().unwrap_or(Self::Whole))
            }
            // The upload was lost, and a new one may last.
            _ if offset > 0 && upload_is_gone(error) => None,
            // It was one request already.
            _ if closing && offset == 0 => None,
            _ => Some(Self::Whole),
        }
    }

    /// The way to try after all retries, if the registry refuses or fails rather than being unreachable or busy.
    pub fn last_resort(self, error: &RegistryError) -> Option<Self> {
        let refuses = error.status().is_some() && !error.is_transient() || error.is_failure_of_the_server();
        (self != Self::Whole && refuses).then_some(Self::Whole)
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

/// Whether the upload is unknown or at another offset, so that a new upload may succeed.
pub(super) fn upload_is_gone(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { status, message, .. }
        if *status == StatusCode::NOT_FOUND
            || *status == StatusCode::RANGE_NOT_SATISFIABLE
            || message.contains("BLOB_UPLOAD"))
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunks(chunk) => write!(f, "uploading in chunks of {} KiB", chunk >> 10),
            Self::Whole => f.write_str("uploading in one request"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16) -> RegistryError {
        RegistryError::Status {
            host: "h".into(),
            doing: "d".into(),
            status: status.try_into().unwrap(),
            message: String::new(),
            retry_after: None,
        }
    }

    #[test]
    fn chunks_become_smaller_and_at_last_one_request() {
        let mut ways = vec![Way::default()];
        while let Some(way) = ways.last().and_then(|way| way.after_refusal(&refusal(413), 0, false)) {
            ways.push(way);
        }
        let chunk = |kib: u64| Way::Chunks(kib << 10);
        assert_eq!(ways, [chunk(32 << 10), chunk(4 << 10), chunk(512), Way::Whole]);
    }

    #[test]
    fn a_refused_chunk_leads_to_one_request_wherever_it_was() {
        let way = Way::default();
        for (status, offset, closing, other) in [
            (405, 0, false, Some(Way::Whole)),
            (404, 0, false, Some(Way::Whole)),
            (400, CHUNK, false, Some(Way::Whole)),
            (400, CHUNK, true, Some(Way::Whole)),
            // A new upload may last.
            (404, CHUNK, false, None),
            // It was one request.
            (400, 0, true, None),
            // A retry may succeed.
            (503, 0, false, None),
        ] {
            assert_eq!(
                way.after_refusal(&refusal(status), offset, closing),
                other,
                "{status} at {offset}"
            );
        }
        assert_eq!(Way::Whole.after_refusal(&refusal(413), 0, true), None);
        assert_eq!(way.last_resort(&refusal(404)), Some(Way::Whole));
        assert_eq!(way.last_resort(&refusal(500)), Some(Way::Whole));
        assert_eq!(way.last_resort(&refusal(503)), None);
    }

    #[test]
    fn a_chunk_is_as_long_as_the_registry_requires() {
        assert_eq!(Way::Chunks(10).next_request(100, 0), (10, false));
        assert_eq!(Way::Chunks(10).next_request(100, 30), (30, false));
        assert_eq!(Way::Chunks(10).next_request(10, 30), (10, true));
        assert_eq!(Way::Whole.next_request(100, 0), (100, true));
    }
}
