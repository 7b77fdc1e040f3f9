//! Rule against traces of the build host: CA bundle, proxies, package index, apt mirror.

use std::collections::BTreeSet;

use super::Rule;
use crate::layout::tree::{Node, NodeKind};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const HOST_TRACES: Rule = Rule {
    id: "host-traces",
    title: "No certificate authority, proxy, package index, mirror or path of the build machine",
    check: host_traces,
};

/// Environment variables, in lower case.
const PROXY_VARIABLES: &[&str] = &["http_proxy", "https_proxy", "ftp_proxy", "all_proxy"];
/// apt options, at any nesting: Acquire::http::Proxy, Proxy-Auto-Detect, Acquire::https { CaInfo … }.
const APT_OPTIONS: &[&str] = &["proxy", "cainfo", "capath"];

fn host_traces(context: &Context, evidence: &mut Evidence) {
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        let NodeKind::File(_) = node.kind else { continue };
        if is_apt_source(path) {
            count += 1;
            apt_source(context, evidence, path, node);
        } else if is_apt_configuration(path) {
            count += 1;
            no_line_with(APT_OPTIONS, context, evidence, path, node);
        } else if is_environment(path) {
            count += 1;
            no_line_with(PROXY_VARIABLES, context, evidence, path, node);
        } else if path.ends_with(".dist-info/direct_url.json") {
            count += 1;
            if text(context, path).is_some_and(|t| t.contains("\"file:")) {
                evidence.file(path, node.layer, "a public source", "a path of the build machine");
            }
        } else if path.starts_with("usr/local/share/ca-certificates/") {
            count += 1;
            evidence.file(
                path,
                node.layer,
                "only the distro's certificate authorities",
                "a local one",
            );
        }
    }
    count += certificates(context, evidence);
    evidence.checked(count, "files that may contain host traces");
}

fn text<'a>(context: &Context<'a>, path: &str) -> Option<&'a str> {
    std::str::from_utf8(context.tree.content(path)?).ok()
}

fn is_apt_source(path: &str) -> bool {
    path == "etc/apt/sources.list"
        || path
            .strip_prefix("etc/apt/sources.list.d/")
            .is_some_and(|n| n.ends_with(".list") || n.ends_with(".sources"))
}

fn is_apt_configuration(path: &str) -> bool {
    path == "etc/apt/apt.conf" || path.starts_with("etc/apt/apt.conf.d/")
}

fn is_environment(path: &str) -> bool {
    [
        "etc/environment",
        "etc/profile",
        "etc/bash.bashrc",
        "root/.bashrc",
        "root/.profile",
    ]
    .contains(&path)
        || path.starts_with("etc/profile.d/")
}

/// Every archive in `deb` lines and `URIs:` must be in the contract.
fn apt_source(context: &Context, evidence: &mut Evidence, path: &str, node: &Node) {
    let Some(text) = text(context, path) else {
        return evidence.file(path, node.layer, "apt sources", "nothing that can be read");
    };
    for word in text
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
    {
        let Some((_, rest)) = word.split_once("://") else {
            continue;
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if !context.terms.host.archives.iter().any(|a| a == authority) {
            // The userinfo before the @ may be a password: do not print it.
            let host = authority.rsplit('@').next().unwrap_or_default();
            evidence.file(path, node.layer, context.terms.host.archives.join(" or "), host);
        }
    }
}

fn no_line_with(words: &[&str], context: &Context, evidence: &mut Evidence, path: &str, node: &Node) {
    let Some(text) = text(context, path) else { return };
    for line in text.lines() {
        let line = line.trim().to_ascii_lowercase();
        let comment = line.starts_with('#') || line.starts_with("//");
        if let Some(word) = words.iter().find(|w| line.contains(**w))
            && !comment
        {
            evidence.file(
                path,
                node.layer,
                "no proxy and no certificate authority",
                format_args!("a line that sets {word}"),
            );
        }
    }
}

/// The bundle has at most as many certificates as the distro's package, and every link in /etc/ssl/certs leads to one
/// of them.
fn certificates(context: &Context, evidence: &mut Evidence) -> usize {
    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    const OURS: &str = "usr/share/ca-certificates/";
    let shipped: BTreeSet<&str> = context
        .tree
        .below(OURS)
        .map(|(p, _)| p)
        .filter(|p| p.ends_with(".crt"))
        .collect();
    let mut count = 0;
    for (path, node) in context.tree.below("etc/ssl/certs") {
        count += 1;
        match &node.kind {
            NodeKind::Symlink(_) => {
                if let Ok((target, _)) = context.tree.resolve(path)
                    && !target.starts_with(OURS)
                {
                    evidence.file(
                        path,
                        node.layer,
                        format_args!("a link to /{OURS}"),
                        format_args!("/{target}"),
                    );
                }
            }
            NodeKind::File(_) if path != BUNDLE => {
                evidence.file(
                    path,
                    node.layer,
                    "only the distro's certificate authorities",
                    "a file of its own",
                );
            }
            _ => {}
        }
    }
    if let Some(node) = context.tree.get(BUNDLE) {
        match text(context, BUNDLE).map(|t| t.matches("-----BEGIN CERTIFICATE-----").count()) {
            Some(n) if n > shipped.len() => {
                evidence.file(
                    BUNDLE,
                    node.layer,
                    format_args!("at most the {} certificates of /{OURS}", shipped.len()),
                    n,
                );
            }
            Some(_) => {}
            None => evidence.file(
                BUNDLE,
                node.layer,
                "a bundle of certificates",
                "nothing that can be read",
            ),
        }
    }
    count
}
