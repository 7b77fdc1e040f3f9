//! Rule against traces of the build host: CA bundle, proxies, package index, apt mirror.

use super::{Rule, apt_sources, certificates};
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
/// apt options, at any nesting: Acquire::http::Proxy, Proxy-Auto-Detect, Acquire::https { CaInfo … }, Dir::Etc::SourceList.
const APT_OPTIONS: &[&str] = &[
    "proxy",
    "cainfo",
    "capath",
    "sourcelist",
    "sourceparts",
    "#include",
    "#clear",
];
/// Not comments, although they begin like one.
const APT_DIRECTIVES: [&str; 2] = ["#include", "#clear"];

fn host_traces(context: &Context, evidence: &mut Evidence) {
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        if node.kind == NodeKind::Directory {
            continue;
        }
        if apt_sources::is_one(path) {
            count += 1;
            apt_sources::check(context, evidence, path, node);
        } else if is_apt_configuration(path) {
            count += 1;
            no_line_with(APT_OPTIONS, context, evidence, path, node);
        } else if is_environment(path) {
            count += 1;
            no_line_with(PROXY_VARIABLES, context, evidence, path, node);
        } else if path.ends_with(".dist-info/direct_url.json") {
            count += 1;
            if !has_public_source(context, path) {
                evidence.file(path, node.layer, "a public source", "a path of the build machine");
            }
        }
    }
    count += certificates::check(context, evidence);
    evidence.checked(count, "files that may contain host traces");
}

fn text<'a>(context: &Context<'a>, path: &str) -> Option<&'a str> {
    std::str::from_utf8(context.tree.content(path)?).ok()
}

/// PEP 610: the address from which an installer took a distribution.
fn has_public_source(context: &Context, path: &str) -> bool {
    let document = context.tree.content(path).map(serde_json::from_slice);
    let Some(Ok(serde_json::Value::Object(document))) = document else {
        return false;
    };
    let url = document.get("url").and_then(|url| url.as_str()).unwrap_or_default();
    url.split_once(':')
        .is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("file"))
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

fn no_line_with(words: &[&str], context: &Context, evidence: &mut Evidence, path: &str, node: &Node) {
    let Some(text) = text(context, path) else {
        return evidence.file(path, node.layer, "a text file", "nothing that can be read");
    };
    // Shells join lines that end with a backslash.
    for line in text.replace("\\\n", "").lines() {
        let line = line.trim().to_ascii_lowercase();
        let comment = match is_apt_configuration(path) {
            true => {
                line.starts_with("//") || line.starts_with('#') && !APT_DIRECTIVES.iter().any(|d| line.starts_with(d))
            }
            false => line.starts_with('#'),
        };
        if let Some(word) = words.iter().find(|w| line.contains(**w))
            && !comment
        {
            evidence.file(
                path,
                node.layer,
                "no proxy, no certificate authority and no list of archives",
                format_args!("a line that sets {word}"),
            );
        }
    }
}
