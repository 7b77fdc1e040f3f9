//! Parses the source of a key, as in cosign's `--key`: `env://VARIABLE`, `pkcs11:…` or a path. Reads PEM text.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::error::KeyProblem;
use super::pkcs11::TokenUri;

/// Far more than a key and the text around it.
const KEY_LIMIT: u64 = 64 << 10;

/// The passphrase of an encrypted key, zeroed on drop.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads `COSIGN_PASSWORD`. An empty value is a passphrase too.
    pub fn from_env() -> Option<Self> {
        std::env::var_os("COSIGN_PASSWORD").map(|value| Self::new(value.into_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    File(PathBuf),
    /// The variable contains the PEM text.
    Environment(String),
    /// A key inside a token.
    Token(TokenUri),
    /// A service that cosign supports and this program does not; reading it is an error.
    Unsupported(String),
}

/// Input for loading a key.
pub(super) enum Material<'a> {
    Pem(Zeroizing<Vec<u8>>),
    Token(&'a TokenUri),
}

impl FromStr for KeySource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if let Some(uri) = TokenUri::new(text) {
            return Ok(Self::Token(uri));
        }
        Ok(match text.split_once("://") {
            Some(("env", variable)) => Self::Environment(variable.to_string()),
            Some((scheme, _)) if !scheme.is_empty() && !scheme.contains('/') => Self::Unsupported(text.to_string()),
            _ => Self::File(PathBuf::from(text)),
        })
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(variable) => write!(f, "env://{variable}"),
            Self::Token(uri) => uri.fmt(f),
            // The text after a question mark may be a secret.
            Self::Unsupported(text) => f.write_str(text.split('?').next().unwrap_or_default()),
        }
    }
}

fn unreadable(error: std::io::Error) -> KeyProblem {
    match error.kind() {
        std::io::ErrorKind::NotFound => KeyProblem::Missing(error.to_string()),
        _ => KeyProblem::Read(error.to_string()),
    }
}

impl KeySource {
    /// Whether the source exists, without reading a file: it may be a pipe.
    pub(super) fn check(&self) -> Result<(), KeyProblem> {
        match self {
            Self::File(path) => std::fs::metadata(path).map(|_| ()).map_err(unreadable),
            Self::Environment(_) | Self::Token(_) | Self::Unsupported(_) => self.read().map(|_| ()),
        }
    }

    pub(super) fn read(&self) -> Result<Material<'_>, KeyProblem> {
        match self {
            Self::File(path) => {
                let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
                let file = File::open(path).map_err(unreadable)?;
                file.take(KEY_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                within_limit(bytes)
            }
            Self::Environment(variable) => {
                // std::env::var_os panics on a name with `=` or NUL.
                let value = match variable.contains(['=', '\0']) || variable.is_empty() {
                    true => None,
                    false => std::env::var_os(variable),
                };
                let value = value.ok_or_else(|| KeyProblem::NoVariable(variable.clone()))?;
                within_limit(Zeroizing::new(value.into_vec()))
            }
            Self::Token(uri) => Ok(Material::Token(uri)),
            Self::Unsupported(_) => Err(KeyProblem::Unsupported {
                what: "keys in a KMS or a cluster are".into(),
                instead: "use a key file, env://VARIABLE or a PKCS#11 token (pkcs11:…), or sign the digest with cosign",
            }),
        }
    }
}

fn within_limit(bytes: Zeroizing<Vec<u8>>) -> Result<Material<'static>, KeyProblem> {
    if bytes.len() as u64 > KEY_LIMIT {
        return Err(KeyProblem::TooLarge(KEY_LIMIT));
    }
    Ok(Material::Pem(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_cosign_names_them() {
        let parsed = |text: &str| text.parse::<KeySource>().unwrap();
        assert_eq!(parsed("env://A"), KeySource::Environment("A".into()));
        assert_eq!(parsed("cosign.key"), KeySource::File("cosign.key".into()));
        assert_eq!(parsed("/a/b://c"), KeySource::File("/a/b://c".into()));
        assert!(matches!(
            parsed("pkcs11:token=t?module-path=/a://b"),
            KeySource::Token(_)
        ));
        for remote in ["awskms:///alias/x", "hashivault://x", "k8s://ns/key"] {
            let source = parsed(remote);
            assert!(matches!(source.read(), Err(KeyProblem::Unsupported { .. })), "{remote}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let read = |text: &str| text.parse::<KeySource>().unwrap().read().err().unwrap();
        assert!(matches!(read("env://OBGP_NO_SUCH_VARIABLE"), KeyProblem::NoVariable(_)));
        assert!(matches!(read("env://"), KeyProblem::NoVariable(_)));
        assert!(matches!(read("env://A=B"), KeyProblem::NoVariable(_)));
        assert!(matches!(read("/nonexistent"), KeyProblem::Missing(_)));
        assert!(matches!(read("/"), KeyProblem::Read(_)));
        assert_eq!(read("/dev/zero"), KeyProblem::TooLarge(KEY_LIMIT));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", Password::new(b"secret".to_vec())), "Password(…)");
    }
}
