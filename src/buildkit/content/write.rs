//! Implements `Content.Write`: writes a blob of a local cache, message by message, into the layout.

use std::io::Write as _;

use oci_spec::image::{Digest, MediaType};
use tonic::Status;

use super::proto::{WriteAction, WriteContentRequest, WriteContentResponse};
use crate::layout::{BlobWriter, Layout, Limits};

/// Receives one blob: `next` returns the messages until there are none, and each is answered. Uncommitted data is
/// discarded, and an interrupted write starts again from 0.
pub(super) fn receive(
    layout: &Layout,
    mut next: impl FnMut() -> Result<Option<WriteContentRequest>, Status>,
    mut answer: impl FnMut(WriteContentResponse) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut blob = Incoming {
        writer: begin(layout)?,
        offset: 0,
        total: 0,
        expected: None,
    };
    while let Some(message) = next()? {
        if !message.expected.is_empty() {
            let expected: Digest = message.expected.parse().map_err(|_| not_sha256(&message.expected))?;
            let path = layout.blob_path(&expected).map_err(|_| not_sha256(&message.expected))?;
            if path.is_file() {
                return Err(Status::already_exists(format!("{expected} is in the cache")));
            }
            blob.expected = Some(expected);
        }
        if let Ok(total @ 1..) = u64::try_from(message.total) {
            blob.total = total;
        }
        let action = message.action();
        if action != WriteAction::Stat {
            blob.write(layout, &message)?;
        }
        let mut answered = WriteContentResponse {
            action: action.into(),
            offset: signed(blob.offset),
            total: signed(blob.total),
            digest: String::new(),
        };
        if action == WriteAction::Commit {
            answered.digest = blob.commit()?;
            return answer(answered);
        }
        answer(answered)?;
    }
    Ok(())
}

fn begin(layout: &Layout) -> Result<BlobWriter<'_>, Status> {
    layout.blob_writer().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("writing the cache: {error}"))
}

fn not_sha256(digest: &str) -> Status {
    Status::invalid_argument(format!("{digest:?} is not a SHA-256 digest"))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

struct Incoming<'a> {
    writer: BlobWriter<'a>,
    offset: u64,
    /// 0 if unknown.
    total: u64,
    expected: Option<Digest>,
}

impl<'a> Incoming<'a> {
    /// Writes at the end of the data, or starts again from 0.
    fn write(&mut self, layout: &'a Layout, message: &WriteContentRequest) -> Result<(), Status> {
        let at = u64::try_from(message.offset).unwrap_or(0);
        if at == 0 && self.offset > 0 {
            self.writer = begin(layout)?;
            self.offset = 0;
        }
        if at != self.offset {
            let end = self.offset;
            return Err(Status::out_of_range(format!(
                "a write at {at} of a blob that ends at {end}"
            )));
        }
        let limit = Limits::default().layer_bytes;
        if message.data.len() as u64 > limit - self.offset {
            return Err(Status::resource_exhausted(format!("a blob of more than {limit} bytes")));
        }
        self.writer.write_all(&message.data).map_err(failed)?;
        self.offset += message.data.len() as u64;
        Ok(())
    }

    fn commit(self) -> Result<String, Status> {
        if self.total > 0 && self.total != self.offset {
            let (total, came) = (self.total, self.offset);
            return Err(Status::failed_precondition(format!("received {came} of {total} bytes")));
        }
        let found = self.writer.digest();
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            return Err(Status::failed_precondition(format!(
                "received {found} instead of {expected}"
            )));
        }
        // Only the blob's referrer knows its type.
        let blob = self.writer.finish(MediaType::Other("application/octet-stream".into()));
        Ok(blob.map_err(failed)?.digest().to_string())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::oci::sha256_digest;

    fn message(action: WriteAction, offset: i64, data: &str) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            offset,
            data: data.into(),
            ..WriteContentRequest::default()
        }
    }

    /// The digest of `hello`.
    fn hello() -> Digest {
        use sha2::{Digest as _, Sha256};
        sha256_digest(&Sha256::digest("hello").into())
    }

    fn send(layout: &Layout, messages: Vec<WriteContentRequest>) -> Result<Vec<(i64, String)>, Status> {
        let mut messages = messages.into_iter();
        let mut answers = Vec::new();
        receive(
            layout,
            || Ok(messages.next()),
            |answer| {
                answers.push((answer.offset, answer.digest));
                Ok(())
            },
        )?;
        Ok(answers)
    }

    #[test]
    fn a_blob_is_there_once_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let path = layout.blob_path(&hello()).unwrap();
        let whole = || {
            let mut messages = vec![
                message(WriteAction::Stat, 0, ""),
                message(WriteAction::Write, 0, "hel"),
                message(WriteAction::Write, 3, "lo"),
            ];
            messages[0].total = 5;
            messages[0].expected = hello().to_string();
            messages
        };
        let answers = send(&layout, whole()).unwrap();
        assert_eq!(answers.iter().map(|a| a.0).collect::<Vec<_>>(), [0, 3, 5]);
        assert!(!path.exists());

        let mut all = whole();
        all.push(message(WriteAction::Commit, 5, ""));
        assert_eq!(send(&layout, all.clone()).unwrap()[3], (5, hello().to_string()));
        assert_eq!(std::fs::read(path).unwrap(), b"hello");
        assert_eq!(send(&layout, all).unwrap_err().code(), Code::AlreadyExists);
    }

    #[test]
    fn what_is_not_what_was_said_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let commit = |data: &str, total: i64, expected: &str| WriteContentRequest {
            total,
            expected: expected.into(),
            ..message(WriteAction::Commit, 0, data)
        };
        for (messages, code) in [
            (vec![commit("jello", 0, hello().as_ref())], Code::FailedPrecondition),
            (vec![commit("hello", 6, "")], Code::FailedPrecondition),
            (vec![message(WriteAction::Write, 1, "x")], Code::OutOfRange),
            (vec![commit("x", 0, "sha256:../../x")], Code::InvalidArgument),
        ] {
            assert_eq!(send(&layout, messages).unwrap_err().code(), code);
        }
        let left = std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count();
        assert_eq!(left, 0);
        // Starts again from 0, as a writer may that does not trust its earlier data.
        let again = vec![
            message(WriteAction::Write, 0, "jel"),
            message(WriteAction::Write, 0, "hel"),
            message(WriteAction::Commit, 3, "lo"),
        ];
        assert_eq!(send(&layout, again).unwrap()[2].1, hello().to_string());
    }
}
