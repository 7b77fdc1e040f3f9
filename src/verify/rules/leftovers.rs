//! Rules about leftovers of a build and secrets: caches, lists, logs, keys.

use super::Rule;
use crate::layout::tree::NodeKind;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const LEFTOVERS: Rule = Rule {
    id: "leftovers",
    title: "No caches, package lists, logs, temporary files or machine ID",
    check: leftovers,
};

pub const SECRETS: Rule = Rule {
    id: "secrets",
    title: "No private keys, tokens or password files",
    check: secrets,
};

/// Generated at first boot; an ID in the image would be shared by all containers.
const MACHINE_IDS: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];

fn leftovers(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.leftovers;
    evidence.checked(context.tree.len(), "paths");
    for (path, node) in context.tree.iter() {
        // Packages own empty directories; only their contents are leftovers.
        if matches!(node.kind, NodeKind::Directory) {
            continue;
        }
        if let Some(pattern) = terms.forbidden.find(path)
            && !terms.allowed.matches(path)
        {
            evidence.file(
                path,
                node.layer,
                format_args!("nothing that is {pattern}"),
                "it is there",
            );
        }
    }
    for path in MACHINE_IDS {
        if let Some(node) = context.tree.get(path)
            && let NodeKind::File(file) = &node.kind
            && file.size > 0
        {
            evidence.file(
                path,
                node.layer,
                "an empty file, filled at first boot",
                format_args!("{} bytes", file.size),
            );
        }
    }
}

fn secrets(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.secrets;
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        let NodeKind::File(file) = &node.kind else { continue };
        count += 1;
        if terms.allowed.matches(path) {
            continue;
        }
        if let Some(pattern) = terms.names.find(path) {
            evidence.file(
                path,
                node.layer,
                format_args!("nothing that is {pattern}"),
                "it is there",
            );
        } else if is_private_key(&file.head) {
            evidence.file(path, node.layer, "no private key", "it starts like a private key");
        }
    }
    evidence.checked(count, "files");
}

/// RFC 7468 and variants: `-----BEGIN … PRIVATE KEY-----` on its own line.
fn is_private_key(head: &[u8]) -> bool {
    head.split(|b| *b == b'\n').any(|line| {
        let line = line.trim_ascii();
        line.starts_with(b"-----BEGIN ")
            && (line.ends_with(b"PRIVATE KEY-----") || line.ends_with(b"PRIVATE KEY BLOCK-----"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_first_line() {
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "ENCRYPTED SIGSTORE "] {
            assert!(is_private_key(
                format!("-----BEGIN {kind}PRIVATE KEY-----\nMII").as_bytes()
            ));
        }
        assert!(is_private_key(b"Bag Attributes\r\n-----BEGIN PRIVATE KEY-----\r\nMII"));
        assert!(!is_private_key(b"-----BEGIN CERTIFICATE-----\nMII"));
        assert!(!is_private_key(b"grep -- '-----BEGIN PRIVATE KEY-----' file"));
    }
}
