//! Rules about the origin of every path: a dpkg package, a Python RECORD, the build's own list, or the contract; and about
//! changes of what these record.
//!
//! dpkg records MD5: that finds accidents, and layers that change a file. Somebody who changes a file and its record is found
//! by the image's signature, not here.

use std::collections::BTreeSet;

use super::Rule;
use crate::image::packages::dpkg_files::{INFO, PackageFile, Paths};
use crate::image::packages::{alternatives, built};
use crate::layout::tree::{Node, NodeKind};
use crate::verify::Context;
use crate::verify::contract::Kind;
use crate::verify::verdict::Evidence;

pub const PACKAGE_FILES: Rule = Rule {
    id: "package-files",
    title: "Every packaged file is as dpkg's database records it, and missing only where the build trims",
    check: package_files,
};

pub const BUILT_FILES: Rule = Rule {
    id: "built-files",
    title: "Every file that the build copies is as the build's own list records it",
    check: built_files,
};

pub const ORIGINS: Rule = Rule {
    id: "origins",
    title: "Every path is of a package, a Python distribution, the build's list or the contract",
    check: origins,
};

fn package_files(context: &Context, evidence: &mut Evidence) {
    for package in &context.packaged.unlisted {
        evidence.finding(
            format_args!("/{INFO}{package}.list"),
            None,
            format_args!("the list of {package}'s files"),
            "missing, or not text",
        );
    }
    let replaced = |path: &String| context.built.as_ref().is_ok_and(|built| built.contains_key(path));
    let terms = &context.terms.origin;
    let mut count = 0;
    for (path, file) in context.packaged.files.iter().filter(|(path, _)| !replaced(path)) {
        let node = context.tree.get(path);
        count += usize::from(node.is_some_and(is_file));
        if node.is_none() && terms.trimmed.matches(path) {
            continue;
        }
        if let Err((expected, found)) = as_packaged(node, file) {
            let layer = node.map(|n| n.layer);
            evidence.finding(
                format_args!("/{path}"),
                layer,
                format_args!("{expected} of package {}", file.package),
                found,
            );
        }
    }
    evidence.checked(count, "packaged files");
}

fn as_packaged(node: Option<&Node>, file: &PackageFile) -> Result<(), (String, String)> {
    let kind = |expected: &str, found: &str| Err((expected.to_string(), found.to_string()));
    match (node.map(|n| &n.kind), file.md5) {
        (None, _) => kind("a path", "missing"),
        (Some(NodeKind::File(found)), Some(md5)) if found.md5 == Some(md5) => Ok(()),
        (Some(NodeKind::File(found)), Some(md5)) => {
            let found = found
                .md5
                .map_or("not hashed".to_string(), |md5| format!("md5 {}", hex::encode(md5)));
            Err((format!("md5 {}, the file", hex::encode(md5)), found))
        }
        (Some(_), Some(_)) => kind("a regular file", "another type"),
        (Some(NodeKind::Symlink(to)), None) if node.is_some_and(|n| n.layer != file.layer) => {
            // dpkg has no hash of a link: one that is not of the layer with its package was changed there.
            Err((format!("the link of layer {}", file.layer), format!("a link to {to}")))
        }
        (Some(NodeKind::Directory | NodeKind::Symlink(_)), None) => Ok(()),
        (Some(NodeKind::File(_)), None) => kind("a file with an MD5 in the database", "no MD5 there"),
        (Some(_), None) => kind("a directory or a link", "another type"),
    }
}

fn built_files(context: &Context, evidence: &mut Evidence) {
    let at = format!("/{}", built::LIST);
    let files = match &context.built {
        Ok(files) => files,
        Err(found) => return evidence.finding(at, None, "the build's list of its files", found),
    };
    evidence.checked(files.len(), "files of the build");
    for (path, sha256) in files {
        if !context.terms.origin.built.matches(path) {
            evidence.finding(
                &at,
                None,
                "only paths that the contract lets the build write",
                format_args!("/{path}"),
            );
        }
        let node = context.tree.get(path);
        let found = match node.map(|n| &n.kind) {
            None => "missing".to_string(),
            Some(NodeKind::File(file)) => match file.sha256 {
                Some(found) if found == *sha256 => continue,
                Some(found) => format!("sha256 {}", hex::encode(found)),
                None => "not hashed".to_string(),
            },
            Some(_) => "another type".to_string(),
        };
        let expected = format_args!("sha256 {}, as in {at}", hex::encode(sha256));
        evidence.finding(format_args!("/{path}"), node.map(|n| n.layer), expected, found);
    }
}

fn origins(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.origin;
    let known = known(context);
    let mut parents = BTreeSet::new();
    let mut unknown = Vec::new();
    for (path, node) in context.tree.iter().filter(|(path, _)| !path.is_empty()) {
        let directory = matches!(node.kind, NodeKind::Directory);
        let base = (node.layer == 0 || directory) && terms.base.matches(path);
        let copy = !known.contains(path) && is_copy(context, path, node, evidence);
        if known.contains(path) || base || copy || terms.generated.matches(path) {
            parents.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
        } else {
            unknown.push((path, node));
        }
    }
    for (path, node) in unknown {
        if !(matches!(node.kind, NodeKind::Directory) && parents.contains(path)) {
            let found = match terms.base.matches(path) {
                true => "a later layer than the base's has it",
                false => "none of them has it",
            };
            evidence.file(
                path,
                node.layer,
                "a path of a package, a Python distribution, the build or the contract",
                found,
            );
        }
    }
    texts(context, evidence);
    evidence.checked(context.tree.len(), "paths");
}

/// Every path that a package, a RECORD, the build's list, update-alternatives or a path of the contract accounts for.
fn known(context: &Context) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = context.packaged.files.keys().cloned().collect();
    known.extend(context.built.iter().flat_map(|built| built.keys().cloned()));
    known.insert(built::LIST.to_string());
    let records = context
        .python
        .distributions
        .iter()
        .flat_map(|d| d.record.iter().flatten());
    known.extend(records.filter(|e| e.sha256.is_some()).map(|e| e.path.clone()));
    known.extend(alternatives(context));
    let files = &context.terms.files;
    // The rules about these check targets of links and owners of directories; files need a hash.
    let required = files.required.iter().chain(&files.read_only_root);
    let required = required.filter(|terms| terms.kind == Kind::Directory || terms.target.is_some());
    known.extend(required.map(|terms| terms.path.trim_matches('/').to_string()));
    let origin = &context.terms.origin;
    known.extend(
        origin
            .texts
            .iter()
            .map(|terms| terms.path.trim_matches('/').to_string()),
    );
    known.extend(info_files(context));
    known
}

/// The links of update-alternatives that lead to one of their choices.
fn alternatives(context: &Context) -> Vec<String> {
    let database = alternatives::links(context.tree);
    let mut paths = Paths::new(context.tree);
    let mut links = Vec::new();
    for (link, targets) in database {
        let path = paths.resolve(&link);
        if let Some(NodeKind::Symlink(target)) = context.tree.get(&path).map(|n| &n.kind)
            && targets.contains(target)
        {
            links.push(path);
        }
    }
    links
}

/// dpkg's own files about each package.
fn info_files(context: &Context) -> Vec<String> {
    let packages = context.dpkg.as_deref().unwrap_or_default();
    let names: BTreeSet<&str> = packages
        .iter()
        .filter(|p| p.has_files())
        .map(|p| p.name.as_str())
        .collect();
    let of_package = |file: &str| {
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        names.contains(stem.split(':').next().unwrap_or(stem))
    };
    let files = context.tree.children(INFO).map(|(name, _)| name);
    files
        .filter(|file| of_package(file))
        .map(|file| format!("{INFO}{file}"))
        .collect()
}

/// Whether the contract has this path as a copy of a packaged file. A copy with another content is a finding.
fn is_copy(context: &Context, path: &str, node: &Node, evidence: &mut Evidence) -> bool {
    let Some(original) = context.terms.origin.copies.get(&format!("/{path}")) else {
        return false;
    };
    let md5 = |node: &Node| match &node.kind {
        NodeKind::File(file) => file.md5,
        _ => None,
    };
    let wanted = context.tree.resolve(original).ok().and_then(|(_, node)| md5(node));
    if wanted.is_none() || md5(node) != wanted {
        evidence.file(
            path,
            node.layer,
            format_args!("a copy of {original}"),
            "another content",
        );
    }
    true
}

/// Configuration files that a program generates, line by line.
fn texts(context: &Context, evidence: &mut Evidence) {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for terms in &context.terms.origin.texts {
        let Some(node) = context.tree.get(&terms.path) else {
            continue;
        };
        let text = context.tree.content(&terms.path).filter(|_| is_file(node));
        let Some(text) = text.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            evidence.finding(&terms.path, Some(node.layer), "a text file", "nothing that can be read");
            continue;
        };
        let lines = text.lines().map(words).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let found: Vec<String> = lines.filter(|l| !terms.optional.contains(l)).collect();
        if found != terms.lines {
            evidence.finding(&terms.path, Some(node.layer), terms.lines.join("; "), found.join("; "));
        }
    }
}

fn is_file(node: &Node) -> bool {
    matches!(node.kind, NodeKind::File(_))
}
