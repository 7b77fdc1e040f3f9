//! Decrypts cosign's private key: JSON in PEM with scrypt parameters (password to key) and a secretbox, into PKCS#8
//! DER.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scrypt::Params;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::KeyProblem;
use super::secretbox::{self, KEY_BYTES};

/// The PEM labels since cosign 2.0, and before.
pub(super) const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// cosign uses 64 MiB (N = 2^16, r = 8, p = 1). Files that require far more are rejected.
const MEMORY_LIMIT: u64 = 256 << 20;
const PARALLELISM_LIMIT: u32 = 4;

#[derive(Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: ScryptParams,
    salt: String,
}

#[derive(Deserialize)]
struct ScryptParams {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// `json` is the content of the PEM document.
pub(super) fn decrypt(json: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyProblem> {
    let encrypted: Encrypted =
        serde_json::from_slice(json).map_err(|_| damaged("it does not contain cosign's JSON"))?;
    for (name, known) in [
        (&encrypted.kdf.name, "scrypt"),
        (&encrypted.cipher.name, "nacl/secretbox"),
    ] {
        if name != known {
            return Err(KeyProblem::Unsupported {
                what: format!("encryption with {name:?} is"),
                instead: "cosign uses scrypt with nacl/secretbox\nhelp: cosign generate-key-pair",
            });
        }
    }
    let params = encrypted.kdf.params.checked()?;
    let salt = decode("the salt", &encrypted.kdf.salt)?;
    let nonce = decode("the nonce", &encrypted.cipher.nonce)?;
    let nonce = nonce
        .as_slice()
        .try_into()
        .map_err(|_| damaged("the nonce has a wrong length"))?;
    let ciphertext = decode("the ciphertext", &encrypted.ciphertext)?;
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    scrypt::scrypt(password, &salt, &params, key.as_mut_slice())
        .map_err(|_| damaged("its scrypt parameters are invalid"))?;
    secretbox::open(&key, nonce, &ciphertext).ok_or(KeyProblem::WrongPassword)
}

impl ScryptParams {
    fn checked(&self) -> Result<Params, KeyProblem> {
        let memory = u64::from(self.r).checked_mul(self.n).and_then(|m| m.checked_mul(128));
        if self.p > PARALLELISM_LIMIT || memory.is_none_or(|memory| memory > MEMORY_LIMIT) {
            return Err(damaged("its decryption needs more than 256 MiB"));
        }
        if !self.n.is_power_of_two() || self.n < 2 {
            return Err(damaged("scrypt's N is not a power of two"));
        }
        // A power of two below 2^28: the logarithm fits.
        let log_n = self.n.trailing_zeros() as u8;
        Params::new(log_n, self.r, self.p).map_err(|_| damaged("its scrypt parameters are invalid"))
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, KeyProblem> {
    STANDARD
        .decode(text)
        .map_err(|_| KeyProblem::Malformed(format!("{what} is not base64")))
}

fn damaged(reason: &str) -> KeyProblem {
    KeyProblem::Malformed(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(n: u64, r: u32, p: u32) -> bool {
        matches!(ScryptParams { n, r, p }.checked(), Err(KeyProblem::Malformed(_)))
    }

    #[test]
    fn only_reasonable_work_is_done_for_a_key() {
        assert!(!refused(1 << 15, 8, 1));
        assert!(!refused(1 << 16, 8, 1));
        for (n, r, p) in [
            (0, 8, 1),
            (1, 8, 1),
            (1000, 8, 1),
            (1 << 16, 0, 1),
            (1 << 16, 8, 0),
            (1 << 16, 8, 5),
            (1 << 19, 8, 1),
            (1 << 16, 1 << 30, 1),
            (u64::MAX, u32::MAX, 1),
        ] {
            assert!(refused(n, r, p), "N {n} r {r} p {p}");
        }
    }

    #[test]
    fn other_encryptions_are_named() {
        let json = |kdf: &str, cipher: &str| {
            serde_json::json!({
                "kdf": {"name": kdf, "params": {"N": 2, "r": 1, "p": 1}, "salt": "AAAA"},
                "cipher": {"name": cipher, "nonce": "AAAA"},
                "ciphertext": "AAAA",
            })
            .to_string()
        };
        let told = |kdf, cipher| decrypt(json(kdf, cipher).as_bytes(), b"").unwrap_err().to_string();
        assert!(told("argon2", "nacl/secretbox").contains("argon2"));
        assert!(told("scrypt", "aes").contains("aes"));
        assert!(told("scrypt", "nacl/secretbox").contains("nonce"));
        assert!(matches!(decrypt(b"{}", b""), Err(KeyProblem::Malformed(_))));
    }
}
