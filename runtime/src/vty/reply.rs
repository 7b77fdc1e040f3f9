//! The bytes from a vty socket, in chunks of any size -> a reply.

/// The longest accepted text of a reply, in bytes.
pub const LIMIT: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// 0 accepted, 1 accepted with a warning, 2 unknown command, 3 ambiguous, 4 incomplete, 13 rejected. Others are failures too.
    pub status: u8,
}

impl Reply {
    pub const UNKNOWN: u8 = 2;
    pub const AMBIGUOUS: u8 = 3;
    pub const INCOMPLETE: u8 = 4;
    pub const REJECTED: u8 = 13;

    pub fn is_accepted(&self) -> bool {
        self.status <= 1
    }

    /// The daemon has no such command in its current context and did nothing.
    pub fn is_unknown(&self) -> bool {
        matches!(self.status, Self::UNKNOWN | Self::AMBIGUOUS | Self::INCOMPLETE)
    }

    /// mgmtd permits one configuring client at a time: "could not lock candidate DS".
    pub fn is_locked(&self) -> bool {
        !self.is_accepted() && !self.is_unknown() && self.text.contains("could not lock")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is longer than {LIMIT} bytes")]
    TooLong,
    #[error("its text contains a NUL")]
    Nul,
    #[error("bytes follow its end")]
    Trailing,
}

/// Collects the bytes of one reply.
#[derive(Debug, Default)]
pub struct ReplyBuffer {
    bytes: Vec<u8>,
}

impl ReplyBuffer {
    /// Adds bytes from the socket. Returns the reply once it is complete. Invalid UTF-8 is replaced.
    pub fn push(&mut self, more: &[u8]) -> Result<Option<Reply>, Malformed> {
        let scanned = self.bytes.len().saturating_sub(3);
        self.bytes.extend_from_slice(more);
        let Some(end) = self.bytes[scanned..].iter().position(|&byte| byte == 0) else {
            return match self.bytes.len() {
                0..=LIMIT => Ok(None),
                _ => Err(Malformed::TooLong),
            };
        };
        let end = scanned + end;
        if end > LIMIT {
            return Err(Malformed::TooLong);
        }
        let trailer = &self.bytes[end..];
        if trailer.iter().take(3).any(|&byte| byte != 0) {
            return Err(Malformed::Nul);
        }
        match trailer {
            &[_, _, _, status] => {
                self.bytes.truncate(end);
                let text = String::from_utf8(std::mem::take(&mut self.bytes))
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                Ok(Some(Reply { text, status }))
            }
            [_, _, _, _, ..] => Err(Malformed::Trailing),
            _ => Ok(None),
        }
    }
}
