//! Loads ECDSA P-256 keys, from PEM or from a token, that sign with SHA-256; and their public keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use pkcs8::der::Decode as _;
use pkcs8::{EncodePublicKey as _, EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef};
use pkcs8::{SubjectPublicKeyInfoRef, spki::AlgorithmIdentifierRef};
use sha2::{Digest as _, Sha256};

use super::cosign_key;
use super::error::{KeyError, KeyProblem};
use super::pem::{self, Block};
use super::pkcs11::{self, TokenKey};
use super::source::{KeySource, Material, Password};

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const OTHERS: [(ObjectIdentifier, &str); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"), "RSA"),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), "Ed25519"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "Ed448"),
];
const MAKE_P256: &str = "use ECDSA P-256, which cosign 2 and 3 verify in all their formats\n\
                         help: cosign generate-key-pair";

/// A private key. No output contains the secret; Debug shows the public key's digest.
pub struct Key {
    secret: Secret,
    public: PublicKey,
}

enum Secret {
    /// Zeroed on drop.
    Software(SigningKey),
    Token(TokenKey),
}

impl Key {
    /// Reads a key in PEM (cosign's encrypted format, PKCS#8 plain or encrypted, or SEC1 `EC PRIVATE KEY`), or finds it
    /// in its token.
    pub fn load(source: &KeySource, password: Option<&Password>) -> Result<Self, KeyError> {
        let key = source.read().and_then(|material| match material {
            Material::Pem(text) => Self::from_pem(&text, password),
            Material::Token(uri) => TokenKey::load(uri).map(|(key, public)| Self {
                secret: Secret::Token(key),
                public,
            }),
        });
        key.map_err(|problem| KeyError {
            from: source.to_string(),
            problem,
        })
    }

    pub fn from_pem(text: &[u8], password: Option<&Password>) -> Result<Self, KeyProblem> {
        let block = pem::find(text, |label| label.ends_with("PRIVATE KEY"))?;
        let der = block.decode()?;
        let password = || password.map(Password::bytes).ok_or(KeyProblem::NoPassword);
        let secret = match block.label {
            "RSA PRIVATE KEY" | "DSA PRIVATE KEY" => return Err(not_p256(&block)),
            _ if block.is_encrypted => return Err(convert(&block, "openssl pkey -in KEY | openssl pkcs8 -topk8")),
            label if cosign_key::LABELS.contains(&label) => pkcs8(&cosign_key::decrypt(&der, password()?)?)?,
            "PRIVATE KEY" => pkcs8(&der)?,
            "ENCRYPTED PRIVATE KEY" => {
                let encrypted = EncryptedPrivateKeyInfoRef::from_der(&der).map_err(damaged)?;
                pkcs8(encrypted.decrypt(password()?).map_err(encrypted_pkcs8)?.as_bytes())?
            }
            "EC PRIVATE KEY" => {
                p256::SecretKey::from_sec1_der(&der).map_err(|_| unsupported("other elliptic curves'"))?
            }
            "OPENSSH PRIVATE KEY" => return Err(convert(&block, "ssh-keygen -p -m PKCS8 -f KEY")),
            _ => {
                return Err(KeyProblem::WrongKind {
                    found: block.kind(),
                    wanted: "private key",
                });
            }
        };
        let secret = SigningKey::from(secret);
        let public = PublicKey::new(*secret.verifying_key())?;
        Ok(Self {
            secret: Secret::Software(secret),
            public,
        })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The DER signature of `message`. Deterministic (RFC 6979), except for tokens.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyProblem> {
        match &self.secret {
            Secret::Software(secret) => {
                let signature: DerSignature = secret.try_sign(message).map_err(damaged)?;
                Ok(signature.as_bytes().to_vec())
            }
            Secret::Token(key) => Ok(key.sign(message, &self.public)?),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.public)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    fingerprint: [u8; 32],
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM, such as `cosign.pub`, or finds the key in its token.
    pub fn load(source: &KeySource) -> Result<Self, KeyError> {
        let key = source.read().and_then(|material| match material {
            Material::Pem(text) => Self::from_pem(&text),
            Material::Token(uri) => pkcs11::public_key(uri),
        });
        key.map_err(|problem| KeyError {
            from: source.to_string(),
            problem,
        })
    }

    pub fn from_pem(text: &[u8]) -> Result<Self, KeyProblem> {
        let block = pem::find(text, |label| label == "PUBLIC KEY")?;
        if block.label != "PUBLIC KEY" {
            return Err(KeyProblem::WrongKind {
                found: block.kind(),
                wanted: "public key (as `cosign public-key --key …` prints it)",
            });
        }
        Self::from_der(&block.decode()?)
    }

    /// Parses a SubjectPublicKeyInfo.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, KeyProblem> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(damaged)?;
        must_be_p256(&info.algorithm)?;
        Self::new(VerifyingKey::try_from(info).map_err(damaged)?)
    }

    pub(super) fn new(key: VerifyingKey) -> Result<Self, KeyProblem> {
        let der = key.to_public_key_der().map_err(damaged)?;
        Ok(Self {
            key,
            fingerprint: Sha256::digest(der.as_bytes()).into(),
        })
    }

    /// The key's name in bundles: its SHA-256 in base64.
    pub fn hint(&self) -> String {
        STANDARD.encode(self.fingerprint)
    }

    /// Whether `signature` is a DER signature of `message` by this key.
    pub(super) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        DerSignature::from_bytes(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hint())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn pkcs8(der: &[u8]) -> Result<p256::SecretKey, KeyProblem> {
    let info = PrivateKeyInfoRef::try_from(der).map_err(damaged)?;
    must_be_p256(&info.algorithm)?;
    p256::SecretKey::try_from(info).map_err(damaged)
}

fn must_be_p256(algorithm: &AlgorithmIdentifierRef<'_>) -> Result<(), KeyProblem> {
    if algorithm.oid == EC {
        return match algorithm.parameters_oid() {
            Ok(P256) => Ok(()),
            _ => Err(unsupported("other elliptic curves'")),
        };
    }
    let named = OTHERS.iter().find(|(oid, _)| *oid == algorithm.oid);
    Err(unsupported(named.map_or("such", |(_, name)| name)))
}

pub(super) fn unsupported(kind: &str) -> KeyProblem {
    KeyProblem::Unsupported {
        what: format!("{kind} keys are"),
        instead: MAKE_P256,
    }
}

fn not_p256(block: &Block<'_>) -> KeyProblem {
    KeyProblem::OtherFormat {
        found: block.kind(),
        help: MAKE_P256.into(),
    }
}

/// A P-256 key may be inside, in a format that this program does not read.
fn convert(block: &Block<'_>, command: &str) -> KeyProblem {
    KeyProblem::OtherFormat {
        found: block.kind(),
        help: format!("convert it to PKCS#8\nhelp: {command}"),
    }
}

/// Keeps only the text of library errors, which describe the structure and never contain key material.
pub(super) fn damaged(error: impl fmt::Display) -> KeyProblem {
    KeyProblem::Malformed(error.to_string())
}

fn encrypted_pkcs8(error: pkcs8::Error) -> KeyProblem {
    use pkcs8::pkcs5::Error as Pkcs5;
    match error {
        pkcs8::Error::EncryptedPrivateKey(Pkcs5::UnsupportedAlgorithm { .. } | Pkcs5::NoPbes1CryptSupport) => {
            KeyProblem::Unsupported {
                what: "this encryption is".into(),
                instead: "encrypt it again\nhelp: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256",
            }
        }
        // A wrong password gives invalid padding, or by chance data that is not a key.
        _ => KeyProblem::WrongPassword,
    }
}
