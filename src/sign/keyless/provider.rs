//! Implements the cryptography of the `sigstore-*` crates for signing: SHA-2 and ECDSA P-256, with the crates used
//! elsewhere in this program. Their default is aws-lc, which would be a second cryptographic library.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{DerSignature, SigningKey};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sigstore_sign::crypto::{CryptoProvider, Error, HashContext, KeyAlgorithm, Result, SigningKeyPair, SigningScheme};
use sigstore_sign::types::HashAlgorithm;
use zeroize::Zeroizing;

static PROVIDER: RustCrypto = RustCrypto;

/// Installs the provider for the whole process. Repeated calls have no effect.
pub(super) fn install() {
    let _ = sigstore_sign::crypto::install_default_provider(&PROVIDER);
}

#[derive(Debug)]
struct RustCrypto;

impl CryptoProvider for RustCrypto {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        match algorithm {
            HashAlgorithm::Sha2256 => Ok(Box::new(Hash(Sha256::new()))),
            HashAlgorithm::Sha2384 => Ok(Box::new(Hash(Sha384::new()))),
            HashAlgorithm::Sha2512 => Ok(Box::new(Hash(Sha512::new()))),
            other => Err(Error::UnsupportedAlgorithm(other.to_string())),
        }
    }

    // cosign verifies keyless signatures.
    fn verify_raw(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<()> {
        Err(Error::UnsupportedAlgorithm(format!(
            "{} cannot be verified by obgp-build",
            scheme.name()
        )))
    }

    fn verify_prehashed(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<()> {
        self.verify_raw(scheme, &[], &[], &[])
    }

    fn generate_key_pair(&self, algorithm: KeyAlgorithm) -> Result<Box<dyn SigningKeyPair>> {
        if algorithm != KeyAlgorithm::EcdsaP256 {
            return Err(Error::UnsupportedAlgorithm(format!("{algorithm:?}")));
        }
        let mut secret = Zeroizing::new([0_u8; 32]);
        loop {
            getrandom::fill(secret.as_mut_slice()).map_err(|e| Error::KeyGeneration(e.to_string()))?;
            // All but one in 2^32 numbers are below the curve's order.
            if let Ok(key) = SigningKey::from_slice(secret.as_slice()) {
                return Ok(Box::new(Pair::new(key)));
            }
        }
    }
}

struct Hash<D>(D);

impl<D: sha2::Digest + Send> HashContext for Hash<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

struct Pair {
    secret: SigningKey,
    /// An uncompressed point, SEC1.
    public: Vec<u8>,
}

impl Pair {
    fn new(secret: SigningKey) -> Self {
        let public = secret.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { secret, public }
    }
}

impl SigningKeyPair for Pair {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::EcdsaP256
    }

    fn public_key_bytes(&self) -> &[u8] {
        &self.public
    }

    fn sign_raw(&self, data: &[u8]) -> Result<Vec<u8>> {
        let signature: DerSignature = self.secret.try_sign(data).map_err(failed)?;
        Ok(signature.as_bytes().to_vec())
    }

    fn sign_prehashed(&self, digest: &[u8]) -> Result<Vec<u8>> {
        let signature: DerSignature = self.secret.sign_prehash(digest).map_err(failed)?;
        Ok(signature.as_bytes().to_vec())
    }
}

fn failed(error: p256::ecdsa::Error) -> Error {
    Error::Signing(error.to_string())
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier as _;
    use sigstore_sign::crypto::KeyPair;

    use super::*;

    /// Used as by the library: both ways of signing match the public key that it sends to Fulcio.
    #[test]
    fn what_the_library_signs_fits_the_public_key_it_shows() {
        install();
        let pair = KeyPair::generate_ecdsa_p256().unwrap();
        let public = pair.public_key_der().unwrap();
        let public: VerifyingKey = pkcs8::DecodePublicKey::from_public_key_der(public.as_bytes()).unwrap();
        let digest = sigstore_sign::crypto::sha256(b"a message");
        assert_eq!(digest.as_bytes()[..], Sha256::digest(b"a message")[..]);
        for signature in [pair.sign(b"a message").unwrap(), pair.sign_digest(&digest).unwrap()] {
            let signature = DerSignature::from_bytes(signature.as_bytes()).unwrap();
            public.verify(b"a message", &signature).unwrap();
            public.verify(b"another", &signature).unwrap_err();
        }
        let other = KeyPair::generate_ecdsa_p256().unwrap();
        assert_ne!(other.public_key_der().unwrap(), pair.public_key_der().unwrap());
    }
}
