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
        for beginning in [&b"PK\x03\x04"[..], &[0x1f, 0x8b, 8], &[0xff, 0xfe]] {
            search(&[beginning, &more]);
            search(&[&[beginning, &more].concat()]);
        }
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

/// Two archives of Python's `zipfile` with a stored and two deflated members, the last of which is a key: written to a
/// file, and to a stream, where descriptors follow the members.
const ZIPS: [&str; 2] = [
    "UEsDBBQAAAAAAAAAIQBHQq0nFAAAABQAAAAKAAAAc3RvcmVkLnR4dHh4eHh4eHh4eHh4eHh4eHh4eHh4UEsDBBQAAAAIAHGLfF0k\
 Q+RuCwAAALQAAAAGAAAAcmVhZG1ly0jNyclXyBhSJABQSwMEFAAAAAgAcYt8XY4AbmhKAAAAXwAAAAkAAABkL2tleS5wZW3T1QUC\
 J1d3Tz+FgCDPMMcQVwVv10iQoC6Xr6ena1mgp5Oji6OfU3p2YUZ2prtluYGTY6Crm6NjsLOTd3J5enpwFhdYuaufC6YRAFBLAQIU\
 AxQAAAAAAAAAIQBHQq0nFAAAABQAAAAKAAAAAAAAAAAAAACAAQAAAABzdG9yZWQudHh0UEsBAhQDFAAAAAgAcYt8XSRD5G4LAAAA\
 tAAAAAYAAAAAAAAAAAAAAIABPAAAAHJlYWRtZVBLAQIUAxQAAAAIAHGLfF2OAG5oSgAAAF8AAAAJAAAAAAAAAAAAAACAAWsAAABk\
 L2tleS5wZW1QSwUGAAAAAAMAAwCjAAAA3AAAAAAA",
    "UEsDBBQACAAIAHGLfF0AAAAAAAAAAAAAAAAGAAAAcmVhZG1ly0jNyclXyBhSJABQSwcIJEPkbgsAAAC0AAAAUEsDBBQACAAIAHGL\
 fF0AAAAAAAAAAAAAAAAJAAAAZC9rZXkucGVt09UFAidXd08/hYAgzzDHEFcFb9dIkKAul6+np2tZoKeTo4ujn1N6dmFGdqa7ZbmB\
 k2Ogq5ujY7Czk3dyeXp6cBYXWLmrnwumEQBQSwcIjgBuaEoAAABfAAAAUEsBAhQDFAAIAAgAcYt8XSRD5G4LAAAAtAAAAAYAAAAA\
 AAAAAAAAAIABAAAAAHJlYWRtZVBLAQIUAxQACAAIAHGLfF2OAG5oSgAAAF8AAAAJAAAAAAAAAAAAAACAAT8AAABkL2tleS5wZW1Q\
 SwUGAAAAAAIAAgBrAAAAwAAAAAAA",
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str, mark: bool, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mark = mark.then_some('\u{feff}').into_iter();
    let characters: String = mark.chain(text.chars()).collect();
    characters.encode_utf16().flat_map(bytes).collect()
}

#[test]
fn keys_are_found_in_compressed_files_and_in_utf_16() {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{BODY}\n");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(pem.len() as u64);
    tar.append_data(&mut header, "d/key.pem", pem.as_bytes()).unwrap();
    let tar = tar.into_inner().unwrap();
    let noise: Vec<u8> = (0..200_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut files = vec![
        tar.clone(),
        gzip(&tar),
        gzip(&[&noise[..], pem.as_bytes()].concat()),
        [gzip(b"a first member"), gzip(pem.as_bytes())].concat(),
    ];
    files.extend(ZIPS.map(|zip| BASE64_STANDARD.decode(zip).unwrap()));
    for mark in [true, false] {
        files.push(utf16(&format!("a text: {pem}"), mark, u16::to_le_bytes));
        files.push(utf16(&format!("a text: {pem}"), mark, u16::to_be_bytes));
    }
    for (at, file) in files.iter().enumerate() {
        for chunk in [1 << 20, 4096, 61] {
            // A reader's first chunk has the beginning.
            let chunks: Vec<&[u8]> = file.chunks(chunk).collect();
            assert_eq!(
                search(&chunks),
                Some(Secret::PrivateKey),
                "file {at} in chunks of {chunk}"
            );
        }
    }
    for harmless in [
        gzip(b"-----BEGIN PRIVATE KEY-----"),
        utf16("a plain text", true, u16::to_le_bytes),
    ] {
        assert_eq!(search(&[&harmless]), None);
    }
}

#[test]
fn a_compressed_bomb_ends_the_search_inside_it() {
    let mut zeros = vec![0; 80 << 20];
    zeros.extend_from_slice(format!("-----BEGIN PRIVATE KEY-----\n{BODY}\n").as_bytes());
    let bomb = gzip(&zeros);
    let started = std::time::Instant::now();
    assert_eq!(search(&[&bomb]), None);
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
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
    let text = format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{BODY}\n");
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
