//! Tests the supported key formats and the errors for others.

use std::path::Path;
use std::process::Command;

use obgp_build::sign::{Key, KeyProblem, KeySource, Password, PublicKey, simple_signing, verify_simple_signing};

use super::some_subject;
use super::support::cosign::{PASSWORD, WRONG_PASSWORD, both};

fn password(text: &str) -> Password {
    Password::new(text.into())
}

/// Checks that the private and the public key match and can sign and verify.
pub fn assert_key_pair(key: &Key, public: &PublicKey) {
    assert_eq!(key.public(), public);
    let digest = some_subject().digest().clone();
    let artifact = simple_signing(key, "example.org/a", &digest, None).unwrap();
    verify_simple_signing(&artifact, public, &digest, Some("example.org/a")).unwrap();
}

#[test]
fn keys_of_both_cosigns_load() {
    let Some(cosigns) = both() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (cosign, name) in cosigns.iter().zip(["two", "three"]) {
        let (key, public) = cosign.key_pair(dir.path(), name);
        let public = PublicKey::load(&KeySource::File(public)).unwrap();
        let source = KeySource::File(key.clone());
        assert_key_pair(&Key::load(&source, Some(&password(PASSWORD))).unwrap(), &public);

        let error = Key::load(&source, Some(&password(WRONG_PASSWORD))).unwrap_err();
        assert_eq!(error.problem, KeyProblem::WrongPassword);
        assert!(error.to_string().contains(&key.display().to_string()), "{error}");
        assert!(!error.to_string().contains(WRONG_PASSWORD));
        assert_eq!(Key::load(&source, None).unwrap_err().problem, KeyProblem::NoPassword);

        // The format of cosign before 2.0.
        let text = std::fs::read_to_string(&key).unwrap();
        let older = text.replace("ENCRYPTED SIGSTORE", "ENCRYPTED COSIGN");
        assert_ne!(older, text);
        assert_key_pair(
            &Key::from_pem(older.as_bytes(), Some(&password(PASSWORD))).unwrap(),
            &public,
        );

        // A changed byte of the ciphertext.
        let (label, json) = pkcs8::der::pem::decode_vec(text.as_bytes()).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let boxed = json["ciphertext"].as_str().unwrap();
        let changed = if boxed.starts_with('A') { "B" } else { "A" };
        json["ciphertext"] = format!("{changed}{}", &boxed[1..]).into();
        let pem = pkcs8::der::pem::encode_string(label, pkcs8::LineEnding::LF, json.to_string().as_bytes()).unwrap();
        let error = Key::from_pem(pem.as_bytes(), Some(&password(PASSWORD))).unwrap_err();
        assert_eq!(error, KeyProblem::WrongPassword);
    }
}

/// Returns the output of OpenSSL, or `None` if it is not installed; panics in CI.
pub fn openssl(dir: &Path, arguments: &str) -> Option<String> {
    match Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(e) if std::env::var_os("CI").is_some() => panic!("openssl: {e}"),
        Err(e) => {
            eprintln!("SKIPPED: openssl: {e}");
            None
        }
    }
}

#[test]
fn openssl_keys_load_and_other_algorithms_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let make = |arguments: &str| openssl(dir.path(), arguments);
    let Some(sec1) = make("ecparam -name prime256v1 -genkey -noout") else {
        return;
    };
    std::fs::write(dir.path().join("key"), &sec1).unwrap();
    let public = make("pkey -in key -pubout").unwrap();
    let public = PublicKey::from_pem(public.as_bytes()).unwrap();
    assert_key_pair(&Key::from_pem(sec1.as_bytes(), None).unwrap(), &public);
    let plain = make("pkcs8 -topk8 -nocrypt -in key").unwrap();
    assert_key_pair(&Key::from_pem(plain.as_bytes(), None).unwrap(), &public);
    for cipher in ["-v2 aes-256-cbc", "-v2 aes-128-cbc", "-scrypt"] {
        let encrypted = make(&format!("pkcs8 -topk8 {cipher} -passout pass:secret -in key")).unwrap();
        let load = |password: Option<&Password>| Key::from_pem(encrypted.as_bytes(), password);
        assert_key_pair(&load(Some(&password("secret"))).unwrap(), &public);
        assert_eq!(load(Some(&password("other"))).unwrap_err(), KeyProblem::WrongPassword);
        assert_eq!(load(None).unwrap_err(), KeyProblem::NoPassword);
    }
    for (arguments, named) in [
        ("genpkey -algorithm ed25519", "Ed25519"),
        ("genpkey -algorithm rsa", "RSA"),
        ("genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-384", "elliptic"),
        ("ecparam -name secp384r1 -genkey -noout", "elliptic"),
    ] {
        let other = make(arguments).unwrap();
        let error = Key::from_pem(other.as_bytes(), None).unwrap_err();
        assert!(matches!(error, KeyProblem::Unsupported { .. }), "{arguments}: {error}");
        assert!(error.to_string().contains(named), "{error}");
        std::fs::write(dir.path().join("other"), other).unwrap();
        let public = make("pkey -in other -pubout").unwrap();
        let error = PublicKey::from_pem(public.as_bytes()).unwrap_err();
        assert!(matches!(error, KeyProblem::Unsupported { .. }), "{arguments}: {error}");
    }
}

#[test]
fn a_key_is_found_among_what_openssl_and_people_write_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(with_parameters) = openssl(dir.path(), "ecparam -name prime256v1 -genkey") else {
        return;
    };
    assert!(with_parameters.starts_with("-----BEGIN EC PARAMETERS-----"));
    std::fs::write(dir.path().join("key"), &with_parameters).unwrap();
    let plain = openssl(dir.path(), "pkcs8 -topk8 -nocrypt -in key").unwrap();
    let public_text = openssl(dir.path(), "pkey -in key -pubout").unwrap();
    let public = PublicKey::from_pem(public_text.as_bytes()).unwrap();
    let (begin, rest) = plain.split_once('\n').unwrap();
    for text in [
        with_parameters.clone(),
        with_parameters.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        format!("# the key of 2026\n\nBag Attributes\n    friendlyName: x\n{plain}\n\nbye\n"),
        format!("{begin}\n\n# comment\n{rest}"),
        plain.replace("-----BEGIN", "  -----BEGIN").replace('\n', "  \n"),
        format!("{public_text}{plain}"),
        format!(
            "{begin}\n{}\n-----END PRIVATE KEY-----",
            rest.split("-----").next().unwrap().replace('\n', "")
        ),
    ] {
        assert_key_pair(&Key::from_pem(text.as_bytes(), None).unwrap(), &public);
    }
    for text in [
        format!("# {public_text}\n{public_text}"),
        format!("{plain}{public_text}"),
        public_text.replace('\n', "\n\n"),
    ] {
        assert_eq!(PublicKey::from_pem(text.as_bytes()).unwrap(), public);
    }
}

#[test]
fn a_file_that_is_not_a_usable_key_is_named_by_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let Some(key) = openssl(dir.path(), "ecparam -name prime256v1 -genkey") else {
        return;
    };
    std::fs::write(dir.path().join("key"), &key).unwrap();
    let make = |arguments: &str| openssl(dir.path(), arguments).unwrap();
    let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    let traditional = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123456789ABCDEF\n\nMAA=\n";
    let pkcs1 = format!("-----BEGIN RSA PRIVATE KEY-----\n{traditional}-----END RSA PRIVATE KEY-----\n");
    for (text, named) in [
        (pkcs1, "encrypted PKCS#1 RSA private key"),
        (block("RSA PRIVATE KEY"), "PKCS#1 RSA private key"),
        (
            make("ec -in key -aes256 -passout pass:secret"),
            "encrypted SEC1 EC private key",
        ),
        (block("OPENSSH PRIVATE KEY"), "OpenSSH private key"),
        (make("pkey -in key -pubout"), "a public key, not a private key"),
        (make("ecparam -name prime256v1"), "a curve's name without a key"),
        (block("CERTIFICATE"), "a certificate, not a private key"),
        (block("CERTIFICATE REQUEST"), "certificate request"),
        ("ecdsa-sha2-nistp256 AAAA me@host\n".into(), "OpenSSH public key"),
        ("PuTTY-User-Key-File-3: ecdsa\n".into(), "PuTTY"),
        ("{\"kty\": \"EC\"}".into(), "JSON"),
        (String::new(), "empty"),
        (key.replace("-----END EC PRIVATE", "-----END"), "no END line"),
    ] {
        let error = Key::from_pem(text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    let der = Key::from_pem(&[0x30, 0x82, 0xff], None).unwrap_err().to_string();
    assert!(der.contains("DER"), "{der}");
    for (text, named) in [
        (block("RSA PUBLIC KEY"), "PKCS#1 RSA public key"),
        (key, "SEC1 EC private key, not a public key"),
        (
            block("ENCRYPTED SIGSTORE PRIVATE KEY"),
            "encrypted sigstore private key",
        ),
    ] {
        let error = PublicKey::from_pem(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn input_that_is_not_a_key_is_rejected() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let (private, public) = (pair.serialize_pem(), pair.public_key_pem());
    let error = Key::from_pem(public.as_bytes(), None).unwrap_err();
    assert!(matches!(error, KeyProblem::WrongKind { .. }), "{error}");
    let error = PublicKey::from_pem(private.as_bytes()).unwrap_err();
    assert!(matches!(error, KeyProblem::WrongKind { .. }), "{error}");
    for text in ["", "no key", "-----BEGIN PRIVATE KEY-----\n"] {
        assert!(
            matches!(Key::from_pem(text.as_bytes(), None), Err(KeyProblem::NotPem(_))),
            "{text}"
        );
    }
    let empty = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    assert!(matches!(
        Key::from_pem(empty.as_bytes(), None),
        Err(KeyProblem::Malformed(_))
    ));
}

#[test]
fn debug_output_hides_the_private_key() {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = Key::from_pem(pem.as_bytes(), None).unwrap();
    assert_eq!(format!("{key:?}"), format!("Key({})", key.public().hint()));
}

/// Runs itself in a child process, because the variables are global.
#[test]
fn keys_are_read_from_environment_variables() {
    const CHILD: &str = "OBGP_TEST_SIGN_CHILD";
    const KEY: &str = "OBGP_TEST_SIGN_KEY";
    const PUBLIC: &str = "OBGP_TEST_SIGN_PUBLIC";
    if std::env::var_os(CHILD).is_some() {
        let password = Password::from_env();
        let key = Key::load(&format!("env://{KEY}").parse().unwrap(), password.as_ref()).unwrap();
        assert_key_pair(
            &key,
            &PublicKey::load(&format!("env://{PUBLIC}").parse().unwrap()).unwrap(),
        );
        return;
    }
    let Some([two, _]) = both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = two.key_pair(dir.path(), "a");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([
            "--exact",
            "keys::keys_are_read_from_environment_variables",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env(KEY, std::fs::read_to_string(key).unwrap())
        .env(PUBLIC, std::fs::read_to_string(public).unwrap());
    let mut run = |password: Option<&str>| {
        match password {
            Some(password) => child.env("COSIGN_PASSWORD", password),
            None => child.env_remove("COSIGN_PASSWORD"),
        };
        let output = child.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), stderr)
    };
    let (passed, stderr) = run(Some(PASSWORD));
    assert!(passed, "{stderr}");
    let (passed, stderr) = run(None);
    assert!(!passed && stderr.contains("NoPassword"), "{stderr}");
}
