//! Rules about sudo: compares the image's grants and Defaults with the contract's statement.

use super::Rule;
use crate::layout::tree::NodeKind;
use crate::verify::Context;
use crate::verify::sudoers::{Allowed, SUDOERS, Setting, parse_contract};
use crate::verify::verdict::Evidence;

pub const FILES: Rule = Rule {
    id: "sudoers-files",
    title: "sudo reads only well-formed sudoers files that only root can change",
    check: files,
};

pub const GRANTS: Rule = Rule {
    id: "sudoers-grants",
    title: "sudo grants exactly the rights in the contract",
    check: grants,
};

pub const DEFAULTS: Rule = Rule {
    id: "sudoers-defaults",
    title: "sudo's Defaults match the contract",
    check: defaults,
};

fn files(context: &Context, evidence: &mut Evidence) {
    let policy = &context.sudoers;
    evidence.checked(policy.files.len(), "sudoers files");
    for problem in &policy.problems {
        evidence.finding(&problem.at, None, "a supported statement", &problem.what);
    }
    let mode = context.terms.sudoers.mode;
    for path in &policy.files {
        let Some(node) = context.tree.get(path) else { continue };
        if node.mode != mode.0 || node.uid != 0 || node.gid != 0 {
            evidence.file(
                path,
                node.layer,
                format_args!("mode {mode}, owner 0:0"),
                format_args!("mode {:04o}, owner {}:{}", node.mode, node.uid, node.gid),
            );
        }
    }
    // Files and links in the directory that are not included grant nothing now, but the next edit may include them.
    for (path, node) in context.tree.below("etc/sudoers.d") {
        let documentation = path == "etc/sudoers.d/README";
        if node.kind != NodeKind::Directory && !policy.files.iter().any(|f| f == path) && !documentation {
            evidence.file(path, node.layer, "only included files", "not included");
        }
    }
}

/// The contract's statement. Its syntax was checked when the contract was loaded.
fn allowed(context: &Context, evidence: &mut Evidence) -> Option<Allowed> {
    parse_contract(&context.terms.sudoers)
        .map_err(|what| evidence.finding("contract", None, "a valid statement", what))
        .ok()
}

fn grants(context: &Context, evidence: &mut Evidence) {
    let policy = &context.sudoers;
    let Some(allowed) = allowed(context, evidence) else {
        return;
    };
    evidence.checked(policy.grants.len(), "grants");
    for grant in &policy.grants {
        if !allowed.grants.iter().any(|a| a.same(grant)) {
            evidence.finding(&grant.at, None, "only the grants of the contract", grant);
        }
    }
    for wanted in &allowed.grants {
        if !policy.grants.iter().any(|g| g.same(wanted)) {
            evidence.finding(format_args!("/{SUDOERS}"), None, wanted, "no such grant");
        }
    }
}

fn defaults(context: &Context, evidence: &mut Evidence) {
    let policy = &context.sudoers;
    let Some(allowed) = allowed(context, evidence) else {
        return;
    };
    evidence.checked(policy.settings.len(), "settings");
    let same = |a: &Setting, b: &Setting| (&a.scope, &a.name, &a.value) == (&b.scope, &b.name, &b.value);
    for setting in &policy.settings {
        if !allowed.settings.iter().any(|a| same(a, setting)) {
            evidence.finding(&setting.at, None, "only the Defaults of the contract", setting);
        }
    }
    for wanted in &allowed.settings {
        if !policy.settings.iter().any(|s| same(s, wanted)) {
            evidence.finding(format_args!("/{SUDOERS}"), None, wanted, "no such setting");
        }
    }
}
