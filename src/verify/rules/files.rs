//! Rules about paths: required paths, forbidden paths, and the mount points of a read-only root.

use super::Rule;
use crate::layout::tree::{File, Node, NodeKind, Unresolved};
use crate::util::elf::{Header, Loader};
use crate::verify::Context;
use crate::verify::contract::{Kind, PathTerms};
use crate::verify::verdict::Evidence;

pub const REQUIRED: Rule = Rule {
    id: "files",
    title: "Every file in the contract is present, with its owner and mode",
    check: |context, evidence| all(context, evidence, &context.terms.files.required),
};

pub const READ_ONLY_ROOT: Rule = Rule {
    id: "read-only-root",
    title: "The mount points and defaults for a read-only root are present",
    check: |context, evidence| all(context, evidence, &context.terms.files.read_only_root),
};

pub const FORBIDDEN: Rule = Rule {
    id: "forbidden-files",
    title: "No path in the image is forbidden by the contract",
    check: forbidden,
};

fn all(context: &Context, evidence: &mut Evidence, wanted: &[PathTerms]) {
    evidence.checked(wanted.len(), "paths");
    for terms in wanted {
        one(context, evidence, terms);
    }
}

fn one(context: &Context, evidence: &mut Evidence, terms: &PathTerms) {
    let (path, node) = match look_up(context, terms) {
        Ok(found) => found,
        Err(e) => return evidence.finding(&terms.path, None, "it exists", e),
    };
    let wrong = |evidence: &mut Evidence, expected: String, found: String| {
        evidence.file(&path, node.layer, expected, found);
    };
    match (&node.kind, terms.kind) {
        (NodeKind::Directory, Kind::Directory) => {}
        (NodeKind::File(file), Kind::File) => program(evidence, terms, &path, node, file),
        (NodeKind::Symlink(found), Kind::Symlink) => {
            if let Some(target) = &terms.target
                && target != found
            {
                wrong(evidence, format!("a link to {target}"), format!("a link to {found}"));
            }
            // Mode and owner of a link have no effect.
            return;
        }
        (found, wanted) => return wrong(evidence, format!("a {}", name(wanted)), kind_name(found).to_string()),
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

/// The node at the path, with links followed, unless the contract requires a link there.
fn look_up<'a>(context: &Context<'a>, terms: &PathTerms) -> Result<(String, &'a Node), Unresolved> {
    if terms.kind != Kind::Symlink {
        return context.tree.resolve(&terms.path);
    }
    let (directory, name) = terms.path.rsplit_once('/').unwrap_or(("", &terms.path));
    let (directory, _) = context.tree.resolve(directory)?;
    let path = format!("{directory}/{name}");
    match context.tree.get(&path) {
        Some(node) => Ok((path, node)),
        None => Err(Unresolved::Missing(path)),
    }
}

/// Size and linkage of a program that pods start often.
fn program(evidence: &mut Evidence, terms: &PathTerms, path: &str, node: &Node, file: &File) {
    if let Some(most) = terms.max_bytes
        && file.size > most
    {
        evidence.file(
            path,
            node.layer,
            format_args!("at most {most} bytes"),
            format_args!("{} bytes", file.size),
        );
    }
    if !terms.r#static {
        return;
    }
    let found = match Header::parse(&file.head) {
        Some(Ok(header)) => match header.loader {
            Loader::None => return,
            Loader::Asked => "one that asks for a loader",
            Loader::Unknown => "program headers that are not where they can be read",
        },
        Some(Err(what)) => what,
        None => "no ELF file",
    };
    evidence.file(path, node.layer, "a static program", found);
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
    }
}

fn kind_name(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File(_) => "a file",
        NodeKind::Directory => "a directory",
        NodeKind::Symlink(_) => "a symbolic link",
        NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. } => "a device",
        NodeKind::Fifo => "a pipe",
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
