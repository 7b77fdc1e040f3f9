//! Searches the bytes of a file for private keys and access tokens while a layer is read, and the text inside
//! compressed files.
//!
//! One vectorised pass finds the beginnings of all forms; what follows a beginning decides, so that
//! programs and documentation that only name a form are not taken for a secret. Memory does not depend on the file's size.
//! Formats: RFC 7468 and RFC 1421 (PEM), RFC 4716 (SSH2), RFC 9580 (OpenPGP), RFC 5208 and RFC 7292 (DER).

use std::fmt;
use std::io;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::compressed::Inside;

/// A secret in a file, by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secret {
    PrivateKey,
    AccessToken,
}

impl Secret {
    /// The first secret in these bytes.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let mut search = Search::default();
        search.update(bytes);
        search.finish()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::PrivateKey => "a private key",
            Secret::AccessToken => "an access token",
        })
    }
}

const PEM_IN_BASE64: &str = "LS0tLS1CRUdJTi";

/// A beginning, and the function that decides by the bytes after it.
type Form = (&'static str, fn(&[u8]) -> Option<Secret>);

const FORMS: &[Form] = &[
    ("-----BEGIN ", pem),
    ("---- BEGIN SSH2 ", pem),
    ("PuTTY-User-Key-File-", |rest| {
        let version = rest.first().is_some_and(u8::is_ascii_digit);
        key(version && rest.get(1..3) == Some(b": ") && run(&rest[3..], u8::is_ascii_lowercase) > 2)
    }),
    ("AGE-SECRET-KEY-1", |rest| {
        key(run(rest, u8::is_ascii_alphanumeric) >= 50)
    }),
    ("untrusted comment: ", |rest| {
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        key(line.windows(10).any(|words| words == b"secret key") && rest.len() > line.len() + 40)
    }),
    // WireGuard.
    ("PrivateKey", |rest| {
        let value = rest.trim_ascii_start().strip_prefix(b"=").map(<[u8]>::trim_ascii_start);
        key(value.is_some_and(|value| run(value, is_base64) == 44))
    }),
    // A PEM file in Base64: kubeconfig's client-key-data, Secrets of Kubernetes, variables of CI systems.
    (PEM_IN_BASE64, |rest| {
        let encoded = [PEM_IN_BASE64.as_bytes(), &rest[..run(rest, is_base64).min(250)]].concat();
        let whole = encoded.len() / 4 * 4;
        let decoded = BASE64_STANDARD.decode(&encoded[..whole]).ok()?;
        pem(decoded.strip_prefix(b"-----BEGIN ")?)
    }),
    // docker's and podman's logins under any name.
    ("\"auths\"", |rest| {
        let key = rest[..rest.len().min(WINDOW)]
            .windows(6)
            .position(|word| word == b"\"auth\"")?;
        let value = rest[key + 6..]
            .trim_ascii_start()
            .strip_prefix(b":")?
            .trim_ascii_start();
        (run(value.strip_prefix(b"\"")?, is_base64) > 3).then_some(Secret::AccessToken)
    }),
    // npm.
    ("_authToken=", |rest| token(rest, 8)),
    // GitHub, GitLab, PyPI, npm, Docker Hub, Slack, Stripe, Google, Hashicorp Vault.
    ("ghp_", |rest| token(rest, 36)),
    ("gho_", |rest| token(rest, 36)),
    ("ghs_", |rest| token(rest, 36)),
    ("ghu_", |rest| token(rest, 36)),
    ("github_pat_", |rest| token(rest, 22)),
    ("glpat-", |rest| token(rest, 20)),
    ("pypi-AgEI", |rest| token(rest, 50)),
    ("npm_", |rest| token(rest, 36)),
    ("dckr_pat_", |rest| token(rest, 20)),
    ("xoxb-", |rest| token(rest, 20)),
    ("xoxp-", |rest| token(rest, 20)),
    ("sk_live_", |rest| token(rest, 20)),
    ("ya29.", |rest| token(rest, 40)),
    ("hvs.CAES", |rest| token(rest, 80)),
    // The secret half of an AWS key is not recognisable without its name.
    ("aws_secret_access_key", |rest| {
        let assigned = rest.iter().position(|b| !b" \t=:\"'".contains(b)).unwrap_or_default();
        let secret = run(&rest[assigned..], |b| is_base64(b) && *b != b'=') == 40;
        (assigned > 0 && secret).then_some(Secret::AccessToken)
    }),
];

static BEGINNINGS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let starts = FORMS.iter().map(|(start, _)| start);
    let automaton = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .build(starts);
    automaton.expect("a few short patterns")
});

/// The bytes in which a form begins and is recognised. A beginning at the end of a chunk is searched again with the next one.
const WINDOW: usize = 512;

/// The search in one file, chunk by chunk: in its bytes, and in the text inside them. The text is searched once:
/// archives in archives are not.
#[derive(Default)]
pub struct Search {
    bytes: Plain,
    text: Plain,
    inside: Progress,
}

/// How far the text inside is searched.
#[derive(Default)]
enum Progress {
    /// Before the first chunk.
    #[default]
    Unknown,
    Open(Inside),
    Done,
}

impl Search {
    pub fn update(&mut self, data: &[u8]) {
        self.bytes.update(data);
        if data.is_empty() {
            return;
        }
        if matches!(self.inside, Progress::Unknown) {
            self.inside = Inside::of(data).map_or(Progress::Done, Progress::Open);
        }
        if let Progress::Open(inside) = &mut self.inside {
            let more = inside.update(data, |text| self.text.update(text));
            if !more || self.text.found.is_some() {
                self.inside = Progress::Done;
            }
        }
    }

    pub fn finish(self) -> Option<Secret> {
        self.bytes.found.or(self.text.found)
    }
}

/// The search in bytes as they are.
#[derive(Default)]
struct Plain {
    found: Option<Secret>,
    /// The last bytes of the previous chunk.
    tail: Vec<u8>,
}

impl Plain {
    fn update(&mut self, data: &[u8]) {
        if self.found.is_some() || data.is_empty() {
            return;
        }
        if self.tail.is_empty() {
            self.found = key(is_der_key(data));
        } else {
            self.tail.extend_from_slice(&data[..data.len().min(WINDOW)]);
            self.found = find(&self.tail);
        }
        self.found = self.found.or_else(|| find(data));
        match data.len() < WINDOW {
            // The tail has all of the chunk.
            true if !self.tail.is_empty() => drop(self.tail.drain(..self.tail.len().saturating_sub(WINDOW))),
            _ => {
                self.tail.clear();
                self.tail.extend_from_slice(&data[data.len().saturating_sub(WINDOW)..]);
            }
        }
    }
}

impl io::Write for Search {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn find(bytes: &[u8]) -> Option<Secret> {
    let mut found = BEGINNINGS.find_iter(bytes);
    found.find_map(|at| FORMS[at.pattern().as_usize()].1(&bytes[at.end()..]))
}

fn key(is_one: bool) -> Option<Secret> {
    is_one.then_some(Secret::PrivateKey)
}

/// At least this many characters of a token. Placeholders repeat one character.
fn token(rest: &[u8], least: usize) -> Option<Secret> {
    let length = run(rest, |b| b.is_ascii_alphanumeric() || b"_-".contains(b));
    let placeholder = rest[..length].iter().all(|b| b.eq_ignore_ascii_case(&rest[0]));
    (length >= least && !placeholder).then_some(Secret::AccessToken)
}

/// The number of leading bytes of a class.
fn run(bytes: &[u8], class: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|b| class(b)).count()
}

fn is_base64(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || b"+/=".contains(b)
}

/// What follows `-----BEGIN `: the label of a private key, and its first line. Keys are also found where a format writes them
/// on one line or line by line in quotes: JSON, YAML, source code, comments.
fn pem(rest: &[u8]) -> Option<Secret> {
    const LONGEST_LABEL: usize = 64;
    let label = &rest[..run(rest, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ').min(LONGEST_LABEL)];
    let label = label.trim_ascii_end();
    let private = [&b"PRIVATE KEY"[..], b"PRIVATE KEY BLOCK"]
        .iter()
        .any(|kind| label.ends_with(kind));
    let body = rest[label.len()..]
        .trim_ascii_start()
        .strip_prefix(b"----")
        .filter(|_| private)?;
    let body = body.strip_prefix(b"-").unwrap_or(body);
    let (text, own_line) = skip_break(body);
    let headers: [&[u8]; 5] = [b"Proc-Type:", b"DEK-Info:", b"Version:", b"Comment:", b"Subject:"];
    let length = run(text, is_base64);
    let short = own_line && length > 2 && text.get(length).is_none_or(u8::is_ascii_whitespace);
    key(length >= 16 || short || headers.iter().any(|header| text.starts_with(header)))
}

/// Skips what stands between the header and the body; returns whether it is a line break alone.
fn skip_break(mut text: &[u8]) -> (&[u8], bool) {
    let blank = text.trim_ascii_start();
    if blank.len() < text.len()
        && text[..text.len() - blank.len()].contains(&b'\n')
        && blank.first().is_some_and(is_base64)
    {
        return (blank, true);
    }
    loop {
        text = match text {
            [b'\\', b'n' | b'r' | b't', rest @ ..] => rest,
            [b'\\', rest @ ..] => rest,
            [b'b', b'"' | b'\'', rest @ ..] => rest,
            [first, rest @ ..] if first.is_ascii_whitespace() || b"\"'#>*|,;.".contains(first) => rest,
            _ => return (text, false),
        };
    }
}

/// PKCS#8, PKCS#1, SEC 1 and PKCS#12 in DER, by their first fields.
fn is_der_key(start: &[u8]) -> bool {
    let inside = match start {
        [0x30, 0x82, _, _, inside @ ..] | [0x30, 0x81, _, inside @ ..] => inside,
        [0x30, length, inside @ ..] if *length < 0x80 => inside,
        _ => return false,
    };
    let pkcs8 = matches!(inside, [2, 1, 0 | 1, 0x30, _, 6, ..]);
    let pkcs1 = matches!(inside, [2, 1, 0, 2, 0x81 | 0x82, ..]);
    let sec1 = matches!(inside, [2, 1, 1, 4, 0x1c..=0x42, ..]);
    let pkcs12 = matches!(inside, [2, 1, 3, 0x30, ..]);
    pkcs8 || pkcs1 || sec1 || pkcs12
}

#[cfg(test)]
mod tests;
