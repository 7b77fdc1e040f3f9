//! Signs with keys in PKCS#11 tokens (HSMs, smart cards), found by a URI; and finds their public keys.
//!
//! The token's module is a shared library, loaded only when such a key is used. The token gets the SHA-256 digest
//! (`CKM_ECDSA`, PKCS#11 v2.40 mechanisms, section 2.3.6) and returns r and s concatenated. It chooses the nonce, so
//! two signatures of the same digest differ.

mod error;
mod session;
mod uri;

use std::sync::Mutex;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use p256::ecdsa::{Signature, VerifyingKey};
use pkcs8::ObjectIdentifier;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode as _, Encode as _};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;

pub use error::TokenProblem;
pub use uri::TokenUri;

use super::error::KeyProblem;
use super::key::{P256, PublicKey, damaged, unsupported};
use error::failed;
use session::Token;

const PRIVATE_KEY: &str = "private key";
const PUBLIC_KEY: &str = "public key or certificate";

pub(super) struct TokenKey {
    /// Only one thread may use a session at a time.
    token: Mutex<Token>,
    object: ObjectHandle,
}

impl TokenKey {
    /// Logs in, and finds the private key of the URI and its public key.
    pub fn load(uri: &TokenUri) -> Result<(Self, PublicKey), KeyProblem> {
        let wanted = uri.read()?;
        let token = Token::open(&wanted)?;
        token.log_in(&wanted)?;
        let Some(object) = only(
            &token,
            PRIVATE_KEY,
            &token.find(ObjectClass::PRIVATE_KEY, &wanted.naming())?,
        )?
        else {
            return Err(none(&token, PRIVATE_KEY, &[ObjectClass::PRIVATE_KEY])?.into());
        };
        let public = public_half(&token, object)?;
        let key = Self {
            token: Mutex::new(token),
            object,
        };
        Ok((key, public))
    }

    /// The DER signature of `message`, checked with `public`.
    pub fn sign(&self, message: &[u8], public: &PublicKey) -> Result<Vec<u8>, TokenProblem> {
        let digest = Sha256::digest(message);
        let raw = {
            let token = self.token.lock().unwrap_or_else(|e| e.into_inner());
            token.session.sign(&Mechanism::Ecdsa, self.object, &digest)
        };
        let raw = raw.map_err(failed("signing"))?;
        let signature = Signature::from_slice(&raw).map_err(|_| TokenProblem::NoSignature(raw.len()))?;
        let signature = signature.to_der().as_bytes().to_vec();
        // Detects a mismatch at signing instead of at verification.
        match public.accepts(message, &signature) {
            true => Ok(signature),
            false => Err(TokenProblem::OtherPublicKey),
        }
    }
}

/// The public key of the URI. Needs no PIN if the token shows the key to everyone.
pub(super) fn public_key(uri: &TokenUri) -> Result<PublicKey, KeyProblem> {
    let wanted = uri.read()?;
    let token = Token::open(&wanted)?;
    if let Some(public) = find_public(&token, &wanted.naming())? {
        return Ok(public);
    }
    if wanted.pin.is_some() {
        token.log_in(&wanted)?;
        if let Some(public) = find_public(&token, &wanted.naming())? {
            return Ok(public);
        }
    }
    Err(none(&token, PUBLIC_KEY, &[ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE])?.into())
}

fn public_half(token: &Token, private: ObjectHandle) -> Result<PublicKey, KeyProblem> {
    let asked = [
        AttributeType::KeyType,
        AttributeType::AlwaysAuthenticate,
        AttributeType::Id,
        AttributeType::Label,
    ];
    // A key pair shares its id, or without an id its label.
    let mut common = None;
    for attribute in token.attributes(private, &asked)? {
        match attribute {
            Attribute::KeyType(kind) => must_be_ec(kind)?,
            Attribute::AlwaysAuthenticate(true) => return Err(TokenProblem::EveryTime.into()),
            Attribute::Id(ref bytes) | Attribute::Label(ref bytes) if !bytes.is_empty() && common.is_none() => {
                common = Some(attribute);
            }
            _ => {}
        }
    }
    let public = match common {
        Some(common) => find_public(token, &[common])?,
        None => None,
    };
    public.ok_or(TokenProblem::NoPublicKey.into())
}

/// From a public key object, else from a certificate.
fn find_public(token: &Token, named: &[Attribute]) -> Result<Option<PublicKey>, KeyProblem> {
    if let Some(object) = only(token, PUBLIC_KEY, &token.find(ObjectClass::PUBLIC_KEY, named)?)? {
        return from_public_key(token, object).map(Some);
    }
    let certificate = only(token, PUBLIC_KEY, &token.find(ObjectClass::CERTIFICATE, named)?)?;
    certificate.map(|object| from_certificate(token, object)).transpose()
}

fn from_public_key(token: &Token, object: ObjectHandle) -> Result<PublicKey, KeyProblem> {
    let (mut curve, mut point) = (None, None);
    let asked = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    for attribute in token.attributes(object, &asked)? {
        match attribute {
            Attribute::KeyType(kind) => must_be_ec(kind)?,
            Attribute::EcParams(der) => curve = ObjectIdentifier::from_der(&der).ok(),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    if curve != Some(P256) {
        return Err(unsupported("other elliptic curves'"));
    }
    let point = point.ok_or_else(|| damaged("the public key has no point"))?;
    // The standard requires an OCTET STRING; some modules omit the wrapping.
    let point = <&OctetStringRef>::from_der(&point).map_or(point.as_slice(), OctetStringRef::as_bytes);
    PublicKey::new(VerifyingKey::from_sec1_bytes(point).map_err(damaged)?)
}

fn from_certificate(token: &Token, object: ObjectHandle) -> Result<PublicKey, KeyProblem> {
    let value = token.attributes(object, &[AttributeType::Value])?;
    let [Attribute::Value(der)] = value.as_slice() else {
        return Err(damaged("the certificate has no value"));
    };
    let certificate = Certificate::from_der(der).map_err(damaged)?;
    let info = certificate.tbs_certificate().subject_public_key_info();
    PublicKey::from_der(&info.to_der().map_err(damaged)?)
}

fn must_be_ec(kind: KeyType) -> Result<(), KeyProblem> {
    match kind {
        KeyType::EC => Ok(()),
        KeyType::RSA => Err(unsupported("RSA")),
        _ => Err(unsupported("such")),
    }
}

/// The only object found; an error if there are several.
fn only(token: &Token, what: &'static str, found: &[ObjectHandle]) -> Result<Option<ObjectHandle>, TokenProblem> {
    match found {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => Err(TokenProblem::SeveralObjects {
            what,
            found: token.names(several)?,
        }),
    }
}

/// An error with the objects that the token does have.
fn none(token: &Token, what: &'static str, classes: &[ObjectClass]) -> Result<TokenProblem, TokenProblem> {
    let mut found = Vec::new();
    for class in classes {
        found.extend(token.names(&token.find(*class, &[])?)?);
    }
    Ok(TokenProblem::NoObject { what, found })
}
