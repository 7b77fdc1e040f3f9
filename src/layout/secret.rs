//! Searches the bytes of a file for private keys and access tokens while a layer is read.
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

/// The search in one file, chunk by chunk.
#[derive(Default)]
pub struct Search {
    found: Option<Secret>,
    /// The last bytes of the previous chunk.
    tail: Vec<u8>,
}

impl Search {
    pub fn update(&mut self, data: &[u8]) {
        if self.found.is_some() {
            return;
        }
        if self.tail.is_empty() {
            self.found = key(is_der_key(data));
        } else {
            self.tail.extend_from_slice(&data[..data.len().min(WINDOW)]);
            self.found = find(&self.tail);
        }
        self.found = self.found.or_else(|| find(data));
        self.tail.clear();
        self.tail.extend_from_slice(&data[data.len().saturating_sub(WINDOW)..]);
    }

    pub fn finish(self) -> Option<Secret> {
        self.found
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics_after_a_beginning(
            form in 0..FORMS.len(),
            more in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'A'), Just(b'='), Just(b'"'), Just(b'\\')], 0..80),
            at in 0..100usize,
        ) {
            let file = [FORMS[form].0.as_bytes(), &more].concat();
            let (a, b) = file.split_at(at.min(file.len()));
            search(&[a, b]);
            search(&[&more]);
        }
    }

    const BODY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";

    fn search(chunks: &[&[u8]]) -> Option<Secret> {
        let mut search = Search::default();
        for chunk in chunks {
            search.update(chunk);
        }
        search.finish()
    }

    #[test]
    fn keys_are_found_in_every_form_in_which_programs_store_them() {
        let labels = [
            "",
            "RSA ",
            "EC ",
            "DSA ",
            "OPENSSH ",
            "ENCRYPTED ",
            "ENCRYPTED SIGSTORE ",
            "ENCRYPTED COSIGN ",
            "X25519 ",
        ];
        let pem = labels.map(|label| format!("-----BEGIN {label}PRIVATE KEY-----\n{BODY}\n"));
        let others = [
            format!("-----BEGIN PRIVATE KEY-----\r\n{BODY}\r\n"),
            format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{BODY}\n"),
            format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{BODY}\n"),
            format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{BODY}\n"),
            format!("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n{BODY}\n"),
            format!("{{\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\n{BODY}\\n\"}}"),
            format!("key: |\n    -----BEGIN PRIVATE KEY-----\n    {BODY}\n"),
            format!("KEY = (b\"-----BEGIN PRIVATE KEY-----\\n\"\n       b\"{BODY}\\n\")\n"),
            format!("# -----BEGIN PRIVATE KEY-----\n# {BODY}\n"),
            format!("KEY=\"-----BEGIN PRIVATE KEY----- {BODY}\""),
            "-----BEGIN EC PRIVATE KEY-----\nMII\n".to_string(),
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".to_string(),
            format!("AGE-SECRET-KEY-1{}", "QZ7".repeat(20)),
            format!("untrusted comment: minisign encrypted secret key\n{BODY}\n"),
            format!("client-key-data: {}\n", BASE64_STANDARD.encode(&pem[1])),
            format!("data: {}", BASE64_STANDARD.encode(&pem[0])),
            format!("[Interface]\nPrivateKey = {}=\n", "a1B".repeat(15).split_at(43).0),
        ];
        for text in pem.iter().chain(&others) {
            assert_eq!(search(&[text.as_bytes()]), Some(Secret::PrivateKey), "{text}");
        }
    }

    #[test]
    fn tokens_are_found_and_placeholders_are_not() {
        let chars = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fG3iL6oR9uX2z0123456789aB3dE6gH9jK2mN5pQ8sT1v";
        for start in [
            "ghp_",
            "github_pat_",
            "glpat-",
            "pypi-AgEI",
            "npm_",
            "dckr_pat_",
            "xoxb-",
            "sk_live_",
        ] {
            let text = format!("url = https://{start}{chars}@host\n");
            assert_eq!(search(&[text.as_bytes()]), Some(Secret::AccessToken), "{text}");
            for placeholder in ["x".repeat(60), "<token>".to_string(), "...".to_string()] {
                assert_eq!(
                    search(&[format!("{start}{placeholder}").as_bytes()]),
                    None,
                    "{start}{placeholder}"
                );
            }
        }
        for text in [
            format!("//registry.npmjs.org/:_authToken={}\n", &chars[..36]),
            "{\"auths\": {\"quay.io\": {\"auth\": \"bWU6c2VjcmV0\"}}}".to_string(),
            "{\n\t\"auths\": {\n\t\t\"quay.io\": {\n\t\t\t\"auth\": \"bWU6c2VjcmV0\"\n".to_string(),
        ] {
            assert_eq!(search(&[text.as_bytes()]), Some(Secret::AccessToken), "{text}");
        }
        for text in [
            "{\"auths\": {}}",
            "{\"auths\": {\"h\": {\"auth\": \"\"}}}",
            "_authToken=${NPM_TOKEN}",
        ] {
            assert_eq!(search(&[text.as_bytes()]), None, "{text}");
        }
        let certificate = BASE64_STANDARD.encode(format!("-----BEGIN CERTIFICATE-----\n{BODY}\n"));
        assert_eq!(search(&[certificate.as_bytes()]), None);
        let aws = format!("aws_secret_access_key = {}\n", &chars[..40]);
        assert_eq!(search(&[aws.as_bytes()]), Some(Secret::AccessToken));
        assert_eq!(
            search(&[b"aws_secret_access_key = os.environ['AWS_SECRET_ACCESS_KEY_OF_THIS']"]),
            None
        );
    }

    #[test]
    fn texts_that_name_a_form_are_not_secrets() {
        for text in [
            "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n",
            "-----BEGIN PUBLIC KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n",
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBFmUjJ0BEADS\n",
            "grep -- '-----BEGIN PRIVATE KEY-----' file",
            "_SK_START = b\"-----BEGIN OPENSSH PRIVATE KEY-----\"\n_SK_END = b\"-----END OPENSSH PRIVATE KEY-----\"\n",
            "-----BEGIN RSA PRIVATE KEY-----\0-----BEGIN EC PRIVATE KEY-----\0",
            "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\n<the key>\n",
            "PuTTY-User-Key-File-%d: %s\n",
            "AGE-SECRET-KEY-1",
            "PrivateKey = <the key>",
        ] {
            assert_eq!(search(&[text.as_bytes()]), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_found_at_every_position_between_chunks() {
        let text =
            format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{BODY}\n");
        let file = [&[b'x'; 700][..], text.as_bytes(), &[b'y'; 700]].concat();
        for at in 0..file.len() {
            let (a, b) = file.split_at(at);
            assert_eq!(search(&[a, b]), Some(Secret::PrivateKey), "split at {at}");
        }
    }

    #[test]
    fn keys_in_der_are_known_by_their_first_fields() {
        let pkcs8_ec = [&[0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7][..], &[0; 100]].concat();
        let pkcs1 = [&[0x30, 0x82, 4, 0xa3, 2, 1, 0, 2, 0x82, 1, 1][..], &[0; 100]].concat();
        let ed25519 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3][..], &[0; 30]].concat();
        let sec1 = [&[0x30, 0x77, 2, 1, 1, 4, 0x20][..], &[0; 100]].concat();
        let pkcs12 = [&[0x30, 0x82, 9, 0, 2, 1, 3, 0x30, 0x82][..], &[0; 100]].concat();
        for der in [pkcs8_ec, pkcs1, ed25519, sec1, pkcs12] {
            assert_eq!(search(&[&der]), Some(Secret::PrivateKey), "{der:02x?}");
        }
        let certificate = [&[0x30, 0x82, 3, 0, 0x30, 0x82, 2, 0, 0xa0, 3, 2, 1, 2][..], &[0; 100]].concat();
        assert_eq!(search(&[&certificate]), None);
    }
}
