//! Describes a failed solve: the step, its last output, the Dockerfile's lines, and whether a retry may succeed.

use std::fmt;
use std::ops::RangeInclusive;

use bollard_buildkit_proto::{google, pb};
use prost::Message;
use tonic::Code;

use super::content::LocalCacheError;
use super::daemon::Daemon;
use super::status::Tracker;
use super::{SolveRequest, dockerfile};
use crate::engine::EngineError;
use crate::oci::Platform;

#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Failed(Box<StepFailure>),
    #[error(transparent)]
    LocalCache(#[from] LocalCacheError),
    #[error("cancelled")]
    Cancelled,
    #[error("the engine reported success but has no image {name}; it may have been removed\nhelp: build again")]
    NoImage { name: String },
}

/// A failed build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    pub platform: Platform,
    /// BuildKit's name of the step, `[stage 2/3] RUN …`; `None` if the failure is outside of a step.
    pub step: Option<String>,
    /// BuildKit's message.
    pub message: String,
    /// The exit code of the step's process, if it ran one.
    pub exit_code: Option<i32>,
    /// The step's last output lines.
    pub log: Vec<String>,
    pub lines: Option<DockerfileLines>,
    /// Whether a retry without changes may succeed.
    pub transient: bool,
}

/// The position of the failed step in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileLines {
    pub path: String,
    /// Counted from 1.
    pub first: usize,
    pub text: Vec<String>,
}

impl SolveError {
    pub fn is_transient(&self) -> bool {
        match self {
            // An engine that answered before and now refuses connections is restarting.
            Self::Engine(EngineError::Unreachable { .. }) => true,
            Self::Engine(error) => error.is_transient(),
            Self::Failed(failure) => failure.transient,
            Self::Cancelled | Self::LocalCache(_) | Self::NoImage { .. } => false,
        }
    }

    /// The error on one line.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Failed(failure) => failure.reason(),
            other => other.to_string().lines().next().unwrap_or_default().to_string(),
        }
    }

    pub(super) fn from_status(
        daemon: &Daemon,
        request: &SolveRequest,
        status: tonic::Status,
        tracker: &Tracker<'_>,
        session_over: bool,
    ) -> Self {
        // tonic creates statuses when the connection breaks; those have a source.
        if let Some(source) = std::error::Error::source(&status) {
            return Self::Engine(daemon.grpc_error("building", source));
        }
        let details = Details::read(status.details());
        let step = details
            .vertex
            .as_deref()
            .and_then(|digest| tracker.by_digest(digest))
            .or_else(|| tracker.failed());
        let message = clean(status.message());
        let text = dockerfile::from_context(&request.context, &request.dockerfile);
        let range = details
            .lines
            .or_else(|| lines_in_message(&message))
            .or_else(|| dockerfile::lines_of_step(text.as_deref()?, &step?.name));
        let lines = range.zip(text).map(|(range, text)| DockerfileLines {
            path: request.dockerfile.clone(),
            first: *range.start(),
            text: text
                .lines()
                .skip(range.start().saturating_sub(1))
                .take(range.end().saturating_sub(*range.start()) + 1)
                .map(str::to_string)
                .collect(),
        });
        let log: Vec<String> = step.map(|step| step.log.iter().cloned().collect()).unwrap_or_default();
        let exit_code = exit_code(&message);
        let transient = match exit_code {
            Some(_) => log.iter().any(|line| is_network_trouble(line)),
            None => status.code() == Code::Unavailable || session_over || is_passing(&message),
        };
        Self::Failed(Box::new(StepFailure {
            platform: request.platform,
            step: step.map(|step| step.name.clone()),
            message,
            exit_code,
            log,
            lines,
            transient,
        }))
    }
}

impl StepFailure {
    fn reason(&self) -> String {
        let step = self.step.as_deref().map(shorten);
        match (step, self.exit_code) {
            (Some(step), Some(code)) => format!("step {step} failed with exit code {code}"),
            (Some(step), None) => format!("step {step} failed: {}", self.message),
            (None, _) => format!("the build failed: {}", self.message),
        }
    }

    /// What to try, for failures whose text does not contain it.
    fn hint(&self) -> Option<String> {
        let mentions = |sign: &str| self.message.contains(sign) || self.log.iter().any(|line| line.contains(sign));
        if mentions("exec format error") {
            return Some(format!(
                "the engine's machine cannot run {} programs: install qemu-user-static and binfmt-support there",
                self.platform
            ));
        }
        if mentions("no space left on device") || mentions("No space left on device") {
            return Some(
                "the engine's disk is full: free space with `docker builder prune` and `docker image prune`".into(),
            );
        }
        if self.exit_code == Some(137) {
            return Some("it was killed, probably out of memory: build fewer targets at once (--jobs 1)".into());
        }
        None
    }
}

/// BuildKit's name of a `RUN` step is its whole script on one line; the Dockerfile's lines are printed as well.
fn shorten(step: &str) -> String {
    const LENGTH: usize = 100;
    let step = step.split_whitespace().collect::<Vec<_>>().join(" ");
    match step.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &step[..end]),
        None => step,
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.platform, self.reason())?;
        if let Some(lines) = &self.lines {
            write!(f, "\n{}:{}", lines.path, lines.first)?;
            for (offset, text) in lines.text.iter().enumerate() {
                write!(f, "\n{:>5} | {text}", lines.first + offset)?;
            }
        }
        if !self.log.is_empty() {
            f.write_str("\nthe last lines of its output:")?;
            for line in &self.log {
                write!(f, "\n  {line}")?;
            }
        }
        match self.hint() {
            Some(hint) => write!(f, "\nhelp: {hint}"),
            None => Ok(()),
        }
    }
}

/// Typed details that BuildKit attaches to a status (its package `errdefs`).
#[derive(Debug, Default)]
struct Details {
    /// Digest of the failed vertex.
    vertex: Option<String>,
    lines: Option<RangeInclusive<usize>>,
}

/// `errdefs.Vertex`
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
struct VertexDetail {
    #[prost(string, tag = "1")]
    #[serde(default)]
    digest: String,
}

/// `errdefs.Source`
#[derive(Clone, PartialEq, prost::Message)]
struct SourceDetail {
    #[prost(message, optional, tag = "1")]
    info: Option<pb::SourceInfo>,
    #[prost(message, repeated, tag = "2")]
    ranges: Vec<pb::Range>,
}

/// The same in JSON, as some versions of BuildKit send it.
#[derive(serde::Deserialize)]
struct SourceJson {
    #[serde(default)]
    ranges: Vec<RangeJson>,
}

#[derive(serde::Deserialize)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(serde::Deserialize)]
struct PositionJson {
    #[serde(default)]
    line: i32,
}

impl Details {
    /// Ignores unreadable details, because they only improve the message.
    fn read(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        let Ok(status) = google::rpc::Status::decode(bytes) else {
            return read;
        };
        for detail in status.details {
            let name = detail
                .type_url
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .trim_end_matches("+json");
            let json = detail.value.first() == Some(&b'{');
            match name {
                "errdefs.Vertex" => {
                    let vertex = match json {
                        true => serde_json::from_slice(&detail.value).ok(),
                        false => VertexDetail::decode(detail.value.as_slice()).ok(),
                    };
                    read.vertex = read
                        .vertex
                        .or(vertex.map(|v: VertexDetail| v.digest).filter(|d| !d.is_empty()));
                }
                "errdefs.Source" => {
                    let ranges: Vec<(i32, i32)> = match json {
                        true => serde_json::from_slice(&detail.value)
                            .map(|source: SourceJson| {
                                source.ranges.iter().map(|r| (r.start.line, r.end.line)).collect()
                            })
                            .unwrap_or_default(),
                        false => SourceDetail::decode(detail.value.as_slice())
                            .map(|source| {
                                let line = |at: &Option<pb::Position>| at.as_ref().map_or(0, |at| at.line);
                                source.ranges.iter().map(|r| (line(&r.start), line(&r.end))).collect()
                            })
                            .unwrap_or_default(),
                    };
                    let first = ranges.iter().map(|r| r.0).filter(|line| *line > 0).min();
                    let last = ranges.iter().map(|r| r.1).max();
                    if let (Some(first), Some(last), None) = (first, last, &read.lines) {
                        let (first, last) = (first.unsigned_abs() as usize, last.max(first).unsigned_abs() as usize);
                        read.lines = Some(first..=last);
                    }
                }
                other => tracing::trace!(detail = other, "a detail of the failure that is not used"),
            }
        }
        read
    }
}

/// Removes the prefixes that BuildKit adds.
fn clean(message: &str) -> String {
    let mut message = message.trim();
    while let Some(rest) = [
        "failed to solve: ",
        "failed to solve with frontend dockerfile.v0: ",
        "rpc error: code = Unknown desc = ",
    ]
    .iter()
    .find_map(|prefix| message.strip_prefix(prefix))
    {
        message = rest;
    }
    message.to_string()
}

/// `dockerfile parse error line 3: …` and `… on line 3: …`
fn lines_in_message(message: &str) -> Option<RangeInclusive<usize>> {
    let rest = message
        .split_once("parse error on line ")
        .or(message.split_once("parse error line "))?
        .1;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .map_or(rest, |end| &rest[..end]);
    let line = digits.parse().ok()?;
    Some(line..=line)
}

/// The number in `… did not complete successfully: exit code: 100`.
fn exit_code(message: &str) -> Option<i32> {
    let rest = message.rsplit_once("exit code: ")?.1;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

/// Transient failures outside of a step's process: of the registry, the network or the session.
fn is_passing(message: &str) -> bool {
    const SIGNS: [&str; 19] = [
        "no active session",
        "connection reset",
        "connection refused",
        "broken pipe",
        "unexpected EOF",
        ": EOF",
        "transport is closing",
        "error reading from server",
        "i/o timeout",
        "TLS handshake timeout",
        "Client.Timeout exceeded",
        "server misbehaving",
        "http2: ",
        "toomanyrequests",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// Messages of apt, pip, uv, curl and git about transient network or server failures.
fn is_network_trouble(line: &str) -> bool {
    const SIGNS: [&str; 18] = [
        "Temporary failure resolving",
        "Temporary failure in name resolution",
        "Could not resolve host",
        "Connection timed out",
        "connection timed out",
        "Connection reset by peer",
        "Connection failed",
        "Could not connect to",
        "Read timed out",
        "operation timed out",
        "Remote end closed connection",
        "IncompleteRead",
        "Hash Sum mismatch",
        "File has unexpected size",
        "429 Too Many Requests",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway",
    ];
    SIGNS.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(details: &[(&str, Vec<u8>)]) -> Vec<u8> {
        google::rpc::Status {
            details: details
                .iter()
                .map(|(name, value)| google::protobuf::Any {
                    type_url: name.to_string(),
                    value: value.clone(),
                })
                .collect(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn details_are_read_in_both_encodings() {
        let at = |line| Some(pb::Position { line, character: 0 });
        let source = SourceDetail {
            info: None,
            ranges: vec![pb::Range {
                start: at(4),
                end: at(6),
            }],
        };
        let vertex = VertexDetail {
            digest: "sha256:1".into(),
        };
        for (source, vertex) in [
            (source.encode_to_vec(), vertex.encode_to_vec()),
            (
                br#"{"info":{},"ranges":[{"start":{"line":4},"end":{"line":6}}]}"#.to_vec(),
                br#"{"digest":"sha256:1"}"#.to_vec(),
            ),
        ] {
            let details = Details::read(&status(&[
                ("github.com/moby/buildkit/errdefs.Source+json", source),
                ("github.com/moby/buildkit/errdefs.Vertex+json", vertex),
            ]));
            assert_eq!(
                (details.lines, details.vertex.as_deref()),
                (Some(4..=6), Some("sha256:1"))
            );
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for message in [
            "failed to do request: Head \"https://r/v2/\": EOF",
            "unexpected status from GET request: 503 Service Unavailable",
            "no active session for abc: context deadline exceeded",
        ] {
            assert!(is_passing(message), "{message}");
        }
        for message in [
            "docker.io/library/nothing:1: not found",
            "dial tcp: lookup registry.invalid: no such host",
            "dockerfile parse error line 3: unknown instruction: FORM",
        ] {
            assert!(!is_passing(message), "{message}");
        }
        assert!(is_network_trouble(
            "E: Failed to fetch http://x/y.deb  503 Service Unavailable [IP: 1.2.3.4 80]"
        ));
        assert!(!is_network_trouble("E: Unable to locate package jqq"));
    }

    #[test]
    fn a_failure_says_what_to_try() {
        let failure = |message: &str, exit_code, log: &[&str]| StepFailure {
            platform: "linux/arm64".parse().unwrap(),
            step: Some("[2/3] RUN x".into()),
            message: message.into(),
            exit_code,
            log: log.iter().map(|line| line.to_string()).collect(),
            lines: Some(DockerfileLines {
                path: "Dockerfile".into(),
                first: 7,
                text: vec!["RUN x".into()],
            }),
            transient: false,
        };
        let emulation = failure("exit code: 255", Some(255), &["exec /bin/sh: exec format error"]);
        assert_eq!(
            emulation.to_string(),
            "linux/arm64: step [2/3] RUN x failed with exit code 255\n\
             Dockerfile:7\n    7 | RUN x\n\
             the last lines of its output:\n  exec /bin/sh: exec format error\n\
             help: the engine's machine cannot run linux/arm64 programs: install qemu-user-static and binfmt-support there"
        );
        assert!(failure("", Some(137), &[]).to_string().contains("memory"));
        assert!(
            failure("write /x: no space left on device", None, &[])
                .to_string()
                .contains("prune")
        );
        assert_eq!(failure("x", Some(1), &["E: no"]).hint(), None);
        let mut long = failure("", Some(1), &[]);
        long.step = Some(format!("[2/3] RUN {}", "é  ".repeat(500)));
        assert!(long.reason().chars().count() < 140, "{}", long.reason());
    }

    #[test]
    fn numbers_in_messages() {
        assert_eq!(
            exit_code("executor failed running [/bin/sh -c exit 3]: exit code: 3"),
            Some(3)
        );
        assert_eq!(
            exit_code("process \"/x\" did not complete successfully: exit code: 127: blah"),
            Some(127)
        );
        assert_eq!(lines_in_message("dockerfile parse error line 3: unknown"), Some(3..=3));
        assert_eq!(lines_in_message("dockerfile parse error on line 12: x"), Some(12..=12));
    }
}
