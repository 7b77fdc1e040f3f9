//! Paths that have to be there, paths that must not, and what a read-only root needs to stand on.

use super::contract::{Kind, PathTerms};
use super::verdict::Evidence;
use super::{Context, Rule};
use crate::layout::tree::NodeKind;

pub const REQUIRED: Rule = Rule {
    id: "files",
    title: "The files the contract names are there, with their owners and modes",
    check: |context, evidence| all(context, evidence, &context.terms.files.required),
};

pub const READ_ONLY_ROOT: Rule = Rule {
    id: "read-only-root",
    title: "The mount points and defaults that a read-only root needs are there",
    check: |context, evidence| all(context, evidence, &context.terms.files.read_only_root),
};

pub const FORBIDDEN: Rule = Rule {
    id: "forbidden-files",
    title: "No path that the contract forbids",
    check: forbidden,
};

fn all(context: &Context, evidence: &mut Evidence, wanted: &[PathTerms]) {
    evidence.checked(wanted.len(), "paths");
    for terms in wanted {
        one(context, evidence, terms);
    }
}

fn one(context: &Context, evidence: &mut Evidence, terms: &PathTerms) {
    let (path, node) = match context.tree.resolve(&terms.path) {
        Ok(found) => found,
        Err(e) => return evidence.finding(&terms.path, None, "it exists", e),
    };
    let kind = match node.kind {
        NodeKind::File(_) => Some(Kind::File),
        NodeKind::Directory => Some(Kind::Directory),
        _ => None,
    };
    if kind != Some(terms.kind) {
        return evidence.file(
            &path,
            node.layer,
            format_args!("a {}", name(terms.kind)),
            "something else",
        );
    }
    if let Some(mode) = terms.mode
        && mode.0 != node.mode
    {
        evidence.file(
            &path,
            node.layer,
            format_args!("mode {mode}"),
            format_args!("mode {:04o}", node.mode),
        );
    }
    let accounts = &context.accounts;
    for (what, wanted, id, found) in [
        (
            "owner",
            &terms.owner,
            terms.owner.as_ref().and_then(|n| accounts.uid(n)),
            node.uid,
        ),
        (
            "group",
            &terms.group,
            terms.group.as_ref().and_then(|n| accounts.gid(n)),
            node.gid,
        ),
    ] {
        if let Some(wanted) = wanted
            && id != Some(found)
        {
            evidence.file(
                &path,
                node.layer,
                format_args!("{what} {wanted}"),
                format_args!("{what} {found}"),
            );
        }
    }
    if !terms.lines.is_empty() {
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let Some(text) = context.tree.content(&path).and_then(|c| std::str::from_utf8(c).ok()) else {
            return evidence.file(
                &path,
                node.layer,
                "text",
                "nothing that can be read (too large, or not UTF-8)",
            );
        };
        for line in &terms.lines {
            if !text.lines().any(|l| words(l) == words(line)) {
                evidence.file(&path, node.layer, format_args!("a line {line:?}"), "none");
            }
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
    }
}

fn forbidden(context: &Context, evidence: &mut Evidence) {
    evidence.checked(context.tree.len(), "paths");
    for (path, node) in context.tree.iter() {
        if let Some(pattern) = context.terms.files.forbidden.find(path) {
            evidence.file(
                path,
                node.layer,
                format_args!("nothing that is {pattern}"),
                "it is there",
            );
        }
    }
}
