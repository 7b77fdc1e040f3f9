//! Tests keys in PKCS#11 tokens: cosign accepts their signatures, and errors hide the PIN.

use std::path::Path;
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, CertificateType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use obgp_build::sign::{Key, KeyProblem, PublicKey, TokenProblem, simple_signing};
use pkcs8::der::Encode as _;

use super::keys::{assert_key_pair, openssl};
use super::registry::Distribution;
use super::support::cosign::both;
use super::support::softhsm::{PIN, SoftHsm};
use super::{SLSA, provenance, some_subject};

/// Runs the program with the tokens. Returns whether it succeeds, and its output.
fn run(softhsm: &SoftHsm, pin: Option<&str>, arguments: &[&str]) -> (bool, String) {
    let (name, config) = softhsm.environment();
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
    command
        .args(arguments)
        .args(["--progress", "quiet"])
        .env(name, config)
        .env("COSIGN_PKCS11_MODULE_PATH", &softhsm.module)
        .env("RUST_LOG", "trace");
    match pin {
        Some(pin) => command.env("COSIGN_PKCS11_PIN", pin),
        None => command.env_remove("COSIGN_PKCS11_PIN"),
    };
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn new_pair() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_a_token_are_accepted_by_cosign_and_verify() {
    let (Some(cosigns), Some(registry), Some(softhsm)) = (both(), Distribution::start(), SoftHsm::new()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (pair, other) = (new_pair(), new_pair());
    softhsm.make_token("release keys");
    softhsm.import("release keys", "agent", "00ff", &pair.serialize_pem());
    softhsm.import("release keys", "other", "01", &other.serialize_pem());
    let (public, other) = (
        file("agent.pub", pair.public_key_pem()),
        file("other.pub", other.public_key_pem()),
    );
    let predicate = file("predicate.json", provenance().to_string());
    let image = registry.put_image("token/signed").await;
    let reference = image.reference(&image.index);
    let uri = "pkcs11:token=release%20keys;object=agent;id=%00%ff";
    for arguments in [
        &["sign", &reference, "--key", uri][..],
        &[
            "attest",
            &reference,
            "--key",
            uri,
            "--type",
            SLSA,
            "--predicate",
            &predicate.display().to_string(),
        ],
    ] {
        let (success, output) = run(&softhsm, Some(PIN), arguments);
        assert!(success, "{arguments:?}: {output}");
        assert!(!output.contains(PIN), "{output}");
    }

    for cosign in &cosigns {
        for subject in image.all() {
            let accepted = cosign.verify(&public, &image.reference(subject)).unwrap();
            assert!(accepted.contains(subject.digest().as_ref()), "{accepted}");
            cosign.verify(&other, &image.reference(subject)).unwrap_err();
        }
        cosign
            .verify_attestation(&public, "slsaprovenance1", &reference)
            .unwrap();
        cosign
            .verify_attestation(&other, "slsaprovenance1", &reference)
            .unwrap_err();
    }
    // verify takes the public key from the PEM file, or from the token without a PIN.
    let verify = |key: &str| {
        run(
            &softhsm,
            None,
            &["verify", &reference, "--signatures-only", "--key", key],
        )
    };
    for key in [
        &public.display().to_string(),
        uri,
        "pkcs11:token=release%20keys;id=%00%ff;type=public",
    ] {
        let (success, output) = verify(key);
        assert!(success, "{key}: {output}");
    }
    for key in [&other.display().to_string(), "pkcs11:token=release%20keys;object=other"] {
        let (success, output) = verify(key);
        assert!(!success && output.contains("another key"), "{key}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_errors_name_the_cause_and_hide_the_pin() {
    let (Some(registry), Some(softhsm)) = (Distribution::start(), SoftHsm::new()) else {
        return;
    };
    let image = registry.put_image("token/errors").await;
    let reference = image.reference(&image.index);
    let dir = tempfile::tempdir().unwrap();
    softhsm.make_token("t");
    softhsm.make_token("u");
    softhsm.import("t", "good", "01", &new_pair().serialize_pem());
    softhsm.import("u", "good", "01", &new_pair().serialize_pem());
    if !import_unsupported_keys(&softhsm, "t") {
        return;
    }
    let no_module = dir.path().join("broken.so");
    std::fs::write(&no_module, "no library").unwrap();
    let broken = format!("pkcs11:token=t;object=good?module-path={}", no_module.display());
    let pin_in_uri = format!("pkcs11:token=t;object=none?pin-value={PIN}");
    let wrong_in_uri = "pkcs11:token=t;object=good?pin-value=close-sesame";
    let wrong = "close-sesame";
    for (pin, uri, expected) in [
        (Some(wrong), "pkcs11:token=t;object=good", "rejected the PIN"),
        (Some(PIN), wrong_in_uri, "rejected the PIN"),
        (None, "pkcs11:token=t;object=good", "set COSIGN_PKCS11_PIN"),
        (
            Some(PIN),
            "pkcs11:token=nowhere;object=good",
            "no token matches the URI; the module has token=",
        ),
        (Some(PIN), "pkcs11:object=good", "several tokens"),
        (
            Some(PIN),
            "pkcs11:token=t;object=none",
            "no private key in the token matches the URI; it has object=",
        ),
        (
            None,
            &pin_in_uri,
            "no private key in the token matches the URI; it has object=",
        ),
        (
            Some(PIN),
            "pkcs11:token=t;object=good;id=%02",
            "no private key in the token matches the URI",
        ),
        (Some(PIN), "pkcs11:token=t", "several private keys"),
        (
            Some(PIN),
            "pkcs11:token=t;object=p384",
            "other elliptic curves' keys are not supported",
        ),
        (Some(PIN), "pkcs11:token=t;object=rsa", "RSA keys are not supported"),
        (
            Some(PIN),
            "pkcs11:token=t;object=good?module-path=/nonexistent.so",
            "loading the PKCS#11 module /nonexistent.so",
        ),
        (
            Some(PIN),
            "pkcs11:token=t;object=good?module-path=relative.so",
            "absolute",
        ),
        (Some(PIN), &broken, "broken.so: "),
        (Some(PIN), "pkcs11:token=t;object=good?pin-valu=open-sesame", "pin-valu"),
    ] {
        let (success, output) = run(&softhsm, pin, &["sign", &reference, "--key", uri]);
        assert!(!success, "{uri}");
        assert!(output.contains(expected), "{uri}: {output}");
        assert!(!output.contains(PIN) && !output.contains(wrong), "{uri}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_that_a_token_lacks_or_does_not_support_are_reported() {
    let (Some(registry), Some(softhsm)) = (Distribution::start(), SoftHsm::new()) else {
        return;
    };
    let image = registry.put_image("token/public").await;
    let reference = image.reference(&image.index);
    softhsm.make_token("t");
    softhsm.import("t", "good", "01", &new_pair().serialize_pem());
    if !import_unsupported_keys(&softhsm, "t") {
        return;
    }
    for (object, expected) in [
        (
            "none",
            "no public key or certificate in the token matches the URI; it has object=",
        ),
        ("rsa", "RSA keys are not supported"),
        ("p384", "other elliptic curves' keys are not supported"),
    ] {
        let uri = format!("pkcs11:token=t;object={object}");
        let (success, output) = run(&softhsm, None, &["verify", &reference, "--key", &uri]);
        assert!(!success, "{uri}");
        assert!(output.contains(expected), "{uri}: {output}");
    }
}

/// Imports a P-384 and an RSA key. Returns `false` if OpenSSL is not installed.
fn import_unsupported_keys(softhsm: &SoftHsm, token: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    for (label, id, arguments) in [
        ("p384", "02", "genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "03", "genpkey -algorithm rsa"),
    ] {
        let Some(pem) = openssl(dir.path(), arguments) else {
            return false;
        };
        softhsm.import(token, label, id, &pem);
    }
    true
}

/// Runs itself in a child process, whose environment names the tokens.
#[test]
fn keys_are_found_in_every_token_layout() {
    const CHILD: &str = "OBGP_TEST_TOKEN_MODULE";
    if let Some(module) = std::env::var_os(CHILD) {
        return check_objects(Path::new(&module));
    }
    let Some(softhsm) = SoftHsm::new() else { return };
    softhsm.make_token("t");
    let (name, config) = softhsm.environment();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pkcs11::keys_are_found_in_every_token_layout", "--nocapture"])
        .env(name, config)
        .env(CHILD, &softhsm.module)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn check_objects(module: &Path) {
    let context = Pkcs11::new(module).unwrap();
    context
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&PIN.into())).unwrap();
    let token = Objects { session, module };

    let pair = new_pair();
    token.private("certified", b"\x01", &pair, &[]);
    token.certificate("certified", b"\x01", &pair);
    assert_key_pair(&token.load("certified").unwrap(), &public(&pair));
    assert_eq!(token.load_public("certified").unwrap(), public(&pair));

    let pair = new_pair();
    token.private("named", b"", &pair, &[]);
    token.public("named", b"", &pair, true);
    let named = token.load("named").unwrap();
    assert_key_pair(&named, &public(&pair));
    // Threads can share a key.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| assert_key_pair(&named, &public(&pair))));
        }
    });

    // A point that is not wrapped in an OCTET STRING.
    let pair = new_pair();
    token.private("bare", b"\x02", &pair, &[]);
    token.public("bare", b"\x02", &pair, false);
    assert_key_pair(&token.load("bare").unwrap(), &public(&pair));

    token.private("alone", b"\x03", &new_pair(), &[]);
    assert_eq!(token.load("alone").unwrap_err(), TokenProblem::NoPublicKey.into());

    token.private(
        "every time",
        b"\x04",
        &new_pair(),
        &[Attribute::AlwaysAuthenticate(true)],
    );
    assert_eq!(token.load("every%20time").unwrap_err(), TokenProblem::EveryTime.into());

    token.private("mixed", b"\x05", &new_pair(), &[]);
    token.public("mixed", b"\x05", &new_pair(), true);
    let refused = simple_signing(&token.load("mixed").unwrap(), "a/b", some_subject().digest(), None).unwrap_err();
    assert!(refused.to_string().contains("are not a pair"), "{refused}");

    token.private("idle", b"\x06", &pair, &[Attribute::Sign(false)]);
    token.public("idle", b"\x06", &pair, true);
    let error = simple_signing(&token.load("idle").unwrap(), "a/b", some_subject().digest(), None).unwrap_err();
    assert!(error.to_string().contains("KeyFunctionNotPermitted"), "{error}");

    for id in [b"\x07", b"\x08"] {
        token.private("twice", id, &new_pair(), &[]);
    }
    let error = token.load("twice").unwrap_err().to_string();
    assert!(error.contains("(object=twice;id=%07, object=twice;id=%08)"), "{error}");
}

/// Creates objects in a token and loads keys from it.
struct Objects<'a> {
    session: Session,
    module: &'a Path,
}

impl Objects<'_> {
    fn source(&self, label: &str) -> String {
        format!(
            "pkcs11:token=t;object={label}?module-path={}&pin-value={PIN}",
            self.module.display()
        )
    }

    fn load(&self, label: &str) -> Result<Key, KeyProblem> {
        Key::load(&self.source(label).parse().unwrap(), None).map_err(|error| {
            assert!(!error.to_string().contains(PIN), "{error}");
            error.problem
        })
    }

    fn load_public(&self, label: &str) -> Result<PublicKey, KeyProblem> {
        PublicKey::load(&self.source(label).parse().unwrap()).map_err(|error| error.problem)
    }

    fn create(&self, class: ObjectClass, label: &str, id: &[u8], attributes: Vec<Attribute>) {
        let common = vec![
            Attribute::Class(class),
            Attribute::Token(true),
            Attribute::Label(label.into()),
            Attribute::Id(id.into()),
        ];
        self.session.create_object(&[common, attributes].concat()).unwrap();
    }

    fn private(&self, label: &str, id: &[u8], pair: &rcgen::KeyPair, more: &[Attribute]) {
        let secret: p256::SecretKey = pkcs8::DecodePrivateKey::from_pkcs8_der(&pair.serialize_der()).unwrap();
        let mut attributes = vec![
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(curve()),
            Attribute::Value(secret.to_bytes().to_vec()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
        ];
        if !more.iter().any(|attribute| matches!(attribute, Attribute::Sign(_))) {
            attributes.push(Attribute::Sign(true));
        }
        attributes.extend_from_slice(more);
        self.create(ObjectClass::PRIVATE_KEY, label, id, attributes);
    }

    fn public(&self, label: &str, id: &[u8], pair: &rcgen::KeyPair, wrapped: bool) {
        let point = pair.public_key_raw();
        let point = match wrapped {
            true => pkcs8::der::asn1::OctetStringRef::new(point).unwrap().to_der().unwrap(),
            false => point.to_vec(),
        };
        let attributes = vec![
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(curve()),
            Attribute::EcPoint(point),
            Attribute::Private(false),
        ];
        self.create(ObjectClass::PUBLIC_KEY, label, id, attributes);
    }

    fn certificate(&self, label: &str, id: &[u8], pair: &rcgen::KeyPair) {
        let certificate = rcgen::CertificateParams::new(vec![])
            .unwrap()
            .self_signed(pair)
            .unwrap();
        let attributes = vec![
            Attribute::CertificateType(CertificateType::X_509),
            // An empty name.
            Attribute::Subject(vec![0x30, 0]),
            Attribute::Value(certificate.der().to_vec()),
            Attribute::Private(false),
        ];
        self.create(ObjectClass::CERTIFICATE, label, id, attributes);
    }
}

fn curve() -> Vec<u8> {
    pkcs8::ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")
        .to_der()
        .unwrap()
}

fn public(pair: &rcgen::KeyPair) -> PublicKey {
    PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap()
}
