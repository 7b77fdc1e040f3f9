//! The certificate authorities of an image: compares them by content with the files of the distro's ca-certificates package.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use crate::layout::tree::{File, Node, NodeKind};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const DIRECTORY: &str = "etc/ssl/certs";
const SHIPPED: &str = "usr/share/ca-certificates";
/// dpkg's list of the package's files, with their MD5.
const SUMS: &str = "var/lib/dpkg/info/ca-certificates.md5sums";

/// Other places from which OpenSSL, GnuTLS, p11-kit, Go or update-ca-certificates take authorities.
const OTHERS: [&str; 9] = [
    "etc/ca-certificates",
    "etc/pki",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "usr/lib/ssl/cert.pem",
    "usr/local/share/ca-certificates",
    "usr/local/share/certs",
    "usr/local/ssl",
    "usr/share/pki",
];

/// Returns the number of paths checked.
pub fn check(context: &Context, evidence: &mut Evidence) -> usize {
    let shipped = shipped(context, evidence);
    for path in OTHERS {
        for (path, node) in at_or_below(context, path) {
            // Debian's OpenSSL links to the bundle.
            if context.tree.resolve(path).is_ok_and(|(target, _)| target == BUNDLE) {
                continue;
            }
            let expected = "only the distro's certificate authorities";
            evidence.file(path, node.layer, expected, "a local one");
        }
    }
    for (directory, real) in [
        (DIRECTORY, DIRECTORY),
        (SHIPPED, SHIPPED),
        ("usr/lib/ssl/certs", DIRECTORY),
    ] {
        if let Ok((found, node)) = context.tree.resolve(directory)
            && found != real
        {
            evidence.file(directory, node.layer, format_args!("/{real}"), format_args!("/{found}"));
        }
    }
    let links = links(context, evidence);
    bundle(context, evidence, &shipped);
    shipped.len() + links
}

fn at_or_below<'a>(context: &Context<'a>, path: &'static str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    let itself = context.tree.get(path).map(|node| (path, node));
    let all = itself.into_iter().chain(context.tree.below(path));
    all.filter(|(_, node)| node.kind != NodeKind::Directory)
}

/// The package's certificates (without line breaks), with their paths. Other files in its directory are findings.
fn shipped<'a>(context: &Context<'a>, evidence: &mut Evidence) -> BTreeMap<String, &'a str> {
    let sums = text(context, SUMS).unwrap_or_default();
    let sums: BTreeMap<&str, &str> = sums
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (path, sum))
        .collect();
    let mut all = BTreeMap::new();
    for (path, node) in context.tree.below(SHIPPED) {
        let (content, md5) = match &node.kind {
            NodeKind::Directory => continue,
            NodeKind::File(File {
                content: Some(content),
                md5,
                ..
            }) => (content, md5.map(hex::encode)),
            _ => {
                evidence.file(path, node.layer, "a certificate", "nothing that can be read");
                continue;
            }
        };
        let expected = "a file of ca-certificates, as dpkg has it";
        match sums.get(path) {
            None => evidence.file(path, node.layer, expected, "not in the package"),
            Some(sum) if md5.as_deref() != Some(*sum) => {
                evidence.file(path, node.layer, expected, "another content");
            }
            Some(_) => match certificates(&String::from_utf8_lossy(content)) {
                Ok(found) => all.extend(found.into_iter().map(|certificate| (certificate, path))),
                Err(line) => evidence.file(
                    path,
                    node.layer,
                    "certificates",
                    format_args!("another text in line {line}"),
                ),
            },
        }
    }
    all
}

/// Every path next to the bundle is a link to a file of the package. Returns their number.
fn links(context: &Context, evidence: &mut Evidence) -> usize {
    let mut count = 0;
    for (path, node) in context.tree.below(DIRECTORY).filter(|(path, _)| *path != BUNDLE) {
        count += 1;
        match &node.kind {
            NodeKind::Directory => {}
            NodeKind::Symlink(_) => {
                let expected = format_args!("a link to /{SHIPPED}");
                match context.tree.resolve(path) {
                    Ok((target, _)) if target.starts_with(&format!("{SHIPPED}/")) => {}
                    Ok((target, _)) => evidence.file(path, node.layer, expected, format_args!("/{target}")),
                    Err(error) => evidence.file(path, node.layer, expected, error),
                }
            }
            _ => evidence.file(
                path,
                node.layer,
                "only the distro's certificate authorities",
                "a file of its own",
            ),
        }
    }
    count
}

/// The bundle has exactly the package's certificates.
fn bundle(context: &Context, evidence: &mut Evidence, shipped: &BTreeMap<String, &str>) {
    let Some(node) = context.tree.get(BUNDLE) else { return };
    let found = match text(context, BUNDLE).map(certificates) {
        Some(Ok(found)) if matches!(node.kind, NodeKind::File(_)) => found,
        Some(Err(line)) => {
            return evidence.file(
                BUNDLE,
                node.layer,
                "certificates",
                format_args!("another text in line {line}"),
            );
        }
        _ => {
            return evidence.file(
                BUNDLE,
                node.layer,
                "a bundle of certificates",
                "nothing that can be read",
            );
        }
    };
    for certificate in found.iter().filter(|c| !shipped.contains_key(*c)) {
        let expected = format_args!("only certificates of /{SHIPPED}");
        let found = format_args!("one with the fingerprint {}", fingerprint(certificate));
        evidence.file(BUNDLE, node.layer, expected, found);
    }
    for (_, path) in shipped.iter().filter(|(c, _)| !found.contains(*c)) {
        evidence.file(
            BUNDLE,
            node.layer,
            format_args!("the certificate of /{path}"),
            "it is missing",
        );
    }
}

/// The certificates of a PEM text, each without line breaks. The number of a line that does not belong to one is an error: a
/// reader might find another kind of certificate there.
fn certificates(text: &str) -> Result<Vec<String>, usize> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut all = Vec::new();
    let mut open: Option<String> = None;
    let mut last = 0;
    for (at, line) in text.lines().enumerate() {
        last = at + 1;
        open = match (open, line.trim_end()) {
            (None, "") => None,
            (None, BEGIN) => Some(String::new()),
            (Some(certificate), END) => {
                all.push(certificate);
                None
            }
            (Some(certificate), line) if line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) => {
                Some(certificate + line)
            }
            _ => return Err(last),
        };
    }
    match open {
        None => Ok(all),
        Some(_) => Err(last),
    }
}

/// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` computes it.
fn fingerprint(certificate: &str) -> String {
    match BASE64_STANDARD.decode(certificate) {
        Ok(der) => hex::encode(Sha256::digest(der)),
        Err(_) => "of no certificate".to_string(),
    }
}

fn text<'a>(context: &Context<'a>, path: &str) -> Option<&'a str> {
    std::str::from_utf8(context.tree.content(path)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_certificates_are_read() {
        let one = "-----BEGIN CERTIFICATE-----\nMIIB\nAA==\n-----END CERTIFICATE-----\n";
        assert_eq!(
            certificates(&format!("{one}\n{one}")),
            Ok(vec!["MIIBAA==".to_string(); 2])
        );
        for (text, line) in [
            (one.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), 1),
            (one.replace("CERTIFICATE", "X509 CERTIFICATE"), 1),
            (format!("{one}# a comment\n"), 5),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n".to_string(), 2),
            (format!("-----BEGIN CERTIFICATE-----\nMIIB\n{one}"), 3),
        ] {
            assert_eq!(certificates(&text), Err(line), "{text}");
        }
    }
}
