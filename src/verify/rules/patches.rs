//! Rule about the patches of the agent's source: the image's record, the files, the label and the project agree.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::Rule;
use crate::image::applied::{self, Applied};
use crate::image::packages::python::Distribution;
use crate::plan::patches::{self, Head, Patch};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const PATCHES: Rule = Rule {
    id: "patches",
    title: "The agent has the patches that its release needs, and its files, record and label agree",
    check,
};

fn check(context: &Context, evidence: &mut Evidence) {
    // Other rules report a missing agent.
    let Some(agent) = context.python.distribution(context.expected.project) else {
        return evidence.checked(0, "patches");
    };
    let at = format!("/{}/{}", agent.metadata, applied::RECORD);
    let record = match Applied::read(context.tree, &agent.metadata) {
        Ok(record) => record,
        Err(found) => return evidence.finding(at, None, "a record of the patches", found),
    };
    let record = record.unwrap_or_default();
    evidence.checked(record.patches.len(), "patches");
    label(context, &record, evidence);
    if let Some(needed) = context.expected.patches {
        selection(&at, needed, &record, evidence);
    }
    let texts = texts(context, agent, &record, evidence);
    listing(context, agent, &record, evidence);
    let contents = contents(context, agent, &at, &record, evidence);
    changes(context, agent, &texts, contents, evidence);
}

/// The label lists the patches in the record.
fn label(context: &Context, record: &Applied, evidence: &mut Evidence) {
    let labels = context.image.config.config().as_ref().and_then(|c| c.labels().as_ref());
    let found = labels.and_then(|l| l.get(patches::LABEL));
    let wanted = patches::label(record.patches.iter().map(|p| (p.name.as_str(), p.sha256.as_str())));
    if found != wanted.as_ref() {
        let quoted = |value: Option<&String>| value.map_or("no such label".to_string(), |v| format!("{v:?}"));
        evidence.finding(
            format_args!("config.Labels.{}", patches::LABEL),
            None,
            format_args!("{}, as in the image's record", quoted(wanted.as_ref())),
            quoted(found),
        );
    }
}

/// The record lists the project's patches for this release, in order.
fn selection(at: &str, needed: &[Patch], record: &Applied, evidence: &mut Evidence) {
    for patch in needed {
        match record.patches.iter().find(|p| p.name == patch.name) {
            None => evidence.finding(at, None, format_args!("{} of the project", patch.name), "not applied"),
            Some(found) if found.sha256 != patch.sha256 => evidence.finding(
                at,
                None,
                format_args!("{} of the project, sha256 {}", patch.name, patch.sha256),
                format_args!("sha256 {}", found.sha256),
            ),
            Some(_) => {}
        }
    }
    for found in &record.patches {
        if !needed.iter().any(|p| p.name == found.name) {
            evidence.finding(at, None, "only the project's patches for this release", &found.name);
        }
    }
    let found: Vec<&String> = record.patches.iter().map(|p| &p.name).collect();
    let wanted: Vec<&String> = needed.iter().map(|p| &p.name).collect();
    let same = found.iter().collect::<BTreeSet<_>>() == wanted.iter().collect::<BTreeSet<_>>();
    if same && found != wanted {
        evidence.finding(
            at,
            None,
            "the patches in the project's order, each once",
            "another order",
        );
    }
}

/// The recorded patches are in the image, byte for byte: their names and texts.
fn texts<'a>(
    context: &Context,
    agent: &Distribution,
    record: &'a Applied,
    evidence: &mut Evidence,
) -> Vec<(&'a str, String)> {
    let mut texts = Vec::new();
    for patch in &record.patches {
        let path = applied::path(&agent.metadata, &patch.name);
        match applied::text(context.tree, &agent.metadata, &patch.name) {
            None => evidence.finding(format_args!("/{path}"), None, "the patch, as recorded", "missing"),
            Some((_, sha256)) if sha256 != patch.sha256 => evidence.finding(
                format_args!("/{path}"),
                None,
                format_args!("sha256 {}, as recorded", patch.sha256),
                format_args!("sha256 {sha256}"),
            ),
            Some((text, _)) => texts.push((patch.name.as_str(), text)),
        }
    }
    texts
}

/// No other files are next to the recorded patches.
fn listing(context: &Context, agent: &Distribution, record: &Applied, evidence: &mut Evidence) {
    let directory = format!("{}/{}", agent.metadata, applied::DIRECTORY);
    for (name, node) in context.tree.children(&directory) {
        let known = name.strip_suffix(".patch");
        if !record.patches.iter().any(|p| Some(p.name.as_str()) == known) {
            evidence.file(
                &format!("{directory}/{name}"),
                node.layer,
                "only recorded patches",
                "not recorded",
            );
        }
    }
}

/// The patched files are exactly the recorded ones: their contents by path.
fn contents(
    context: &Context,
    agent: &Distribution,
    at: &str,
    record: &Applied,
    evidence: &mut Evidence,
) -> BTreeMap<String, String> {
    let changed: BTreeSet<&String> = record.patches.iter().flat_map(|p| &p.files).collect();
    if !changed.iter().copied().eq(record.files.keys()) {
        let found = record.files.keys().cloned().collect::<Vec<_>>().join(", ");
        evidence.finding(at, None, "the SHA-256 of each file that a patch changes", found);
    }
    let mut contents = BTreeMap::new();
    for (file, wanted) in &record.files {
        let path = format!("{}/{file}", agent.site);
        let Some(bytes) = context.tree.content(&path) else {
            evidence.finding(
                format_args!("/{path}"),
                None,
                "the patched file",
                "missing, or not a source of the agent",
            );
            continue;
        };
        let found = hex::encode(Sha256::digest(bytes));
        if found != *wanted {
            let layer = context.tree.get(&path).map(|n| n.layer);
            evidence.finding(
                format_args!("/{path}"),
                layer,
                format_args!("sha256 {wanted}, as recorded"),
                format_args!("sha256 {found}"),
            );
            continue;
        }
        contents.insert(file.clone(), String::from_utf8_lossy(bytes).into_owned());
    }
    contents
}

/// Each patch is in the files: it can be reverted, the last one first.
fn changes(
    context: &Context,
    agent: &Distribution,
    texts: &[(&str, String)],
    mut contents: BTreeMap<String, String>,
    evidence: &mut Evidence,
) {
    let package = patches::package(context.expected.project);
    for (name, text) in texts.iter().rev() {
        let parsed = Head::parse(text.as_bytes()).and_then(|(_, diff)| patches::split(diff, &package));
        let files = match parsed {
            Ok(files) => files,
            Err(error) => {
                let path = applied::path(&agent.metadata, name);
                evidence.finding(format_args!("/{path}"), None, "a patch of the agent", error);
                continue;
            }
        };
        for (file, diff) in files {
            // Missing and modified files are already reported.
            let Some(content) = contents.get_mut(file) else {
                continue;
            };
            let before = diffy::Patch::from_str(diff)
                .ok()
                .and_then(|patch| diffy::apply(content, &patch.reverse()).ok());
            match before {
                Some(before) => *content = before,
                None => evidence.finding(
                    format_args!("/{}/{file}", agent.site),
                    None,
                    format_args!("the change of {name}"),
                    "missing",
                ),
            }
        }
    }
}
