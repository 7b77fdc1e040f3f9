//! Finds the PEM blocks of a key file, and names what a file without one is.
//!
//! Accepts what OpenSSL accepts: other blocks, comments and blank lines around the key, lines of any length
//! (RFC 7468, section 2: parsers may ignore whitespace and other text).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::error::KeyProblem;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

pub(super) struct Block<'a> {
    pub label: &'a str,
    /// Whether its headers say that OpenSSL's traditional encryption is used (RFC 1421, `Proc-Type: 4,ENCRYPTED`).
    pub is_encrypted: bool,
    body: Zeroizing<String>,
}

impl Block<'_> {
    pub fn decode(&self) -> Result<Zeroizing<Vec<u8>>, KeyProblem> {
        let decoded = STANDARD.decode(self.body.as_bytes());
        decoded
            .map(Zeroizing::new)
            .map_err(|_| KeyProblem::Malformed(format!("its {:?} block is not base64", self.label)))
    }

    /// What the block is, for errors.
    pub fn kind(&self) -> String {
        let name = match self.label {
            "RSA PRIVATE KEY" => "PKCS#1 RSA private key",
            "RSA PUBLIC KEY" => "PKCS#1 RSA public key",
            "EC PRIVATE KEY" => "SEC1 EC private key",
            "OPENSSH PRIVATE KEY" => "OpenSSH private key",
            "ENCRYPTED PRIVATE KEY" => "encrypted PKCS#8 private key",
            "EC PARAMETERS" => "curve's name without a key",
            "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => "certificate",
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => "certificate request",
            other => return self.encrypted(&other.to_lowercase()),
        };
        self.encrypted(name)
    }

    fn encrypted(&self, name: &str) -> String {
        let prefix = if self.is_encrypted { "encrypted " } else { "" };
        format!("{prefix}{name}")
    }
}

/// The first block that is a key of the wanted kind, else the first block that is not a curve's parameters.
pub(super) fn find(text: &[u8], is_wanted: impl Fn(&str) -> bool) -> Result<Block<'_>, KeyProblem> {
    let Ok(text) = str::from_utf8(text) else {
        return Err(KeyProblem::NotPem(describe_binary(text)));
    };
    let mut blocks = blocks(text)?;
    let wanted = blocks.iter().position(|block| is_wanted(block.label));
    let other = blocks.iter().position(|block| !block.label.ends_with(" PARAMETERS"));
    match wanted.or(other).or((!blocks.is_empty()).then_some(0)) {
        Some(at) => Ok(blocks.swap_remove(at)),
        None => Err(KeyProblem::NotPem(describe(text).into())),
    }
}

/// Text outside of the blocks is ignored.
fn blocks(text: &str) -> Result<Vec<Block<'_>>, KeyProblem> {
    let mut found = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for line in text.split(['\n', '\r']).map(str::trim) {
        let line = line.trim_start_matches('\u{feff}');
        match &mut open {
            None => {
                let label = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES));
                open = label.map(|label| Block {
                    label,
                    is_encrypted: false,
                    // Without reallocation, which would leave copies.
                    body: Zeroizing::new(String::with_capacity(text.len())),
                });
            }
            Some(block) if line.starts_with(DASHES) => {
                let end = line
                    .strip_prefix("-----END ")
                    .and_then(|rest| rest.strip_suffix(DASHES));
                if end != Some(block.label) {
                    let reason = format!("its {:?} block has no END line", block.label);
                    return Err(KeyProblem::NotPem(reason));
                }
                found.extend(open.take());
            }
            // A header.
            Some(block) if line.contains(':') => block.is_encrypted |= line.ends_with("ENCRYPTED"),
            Some(_) if line.starts_with(['#', ';']) => {}
            Some(block) => block.body.extend(line.split_ascii_whitespace()),
        }
    }
    match open {
        Some(block) => Err(KeyProblem::NotPem(format!(
            "its {:?} block has no END line",
            block.label
        ))),
        None => Ok(found),
    }
}

/// What a text without a PEM block is.
fn describe(text: &str) -> &'static str {
    let text = text.trim_start();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if text.is_empty() {
        "it is empty"
    } else if starts(&["ssh-", "ecdsa-sha2-", "sk-"]) {
        "it is an OpenSSH public key"
    } else if starts(&["PuTTY-User-Key-File"]) {
        "it is a PuTTY key"
    } else if starts(&["untrusted comment:"]) {
        "it is a minisign or signify key"
    } else if starts(&["{"]) {
        "it is a JSON document"
    } else {
        "it has no BEGIN line"
    }
}

fn describe_binary(bytes: &[u8]) -> String {
    match bytes {
        // A SEQUENCE.
        [0x30, ..] => "it is binary, perhaps DER, which openssl pkey -inform DER converts".into(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16".into(),
        _ => "it is binary".into(),
    }
}
