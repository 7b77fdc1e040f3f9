//! What sudo allows in the image, compared with the contract's statement grant by grant.

use super::sudoers::{Allowed, Arguments, SUDOERS, parse_contract};
use super::verdict::Evidence;
use super::{Context, Rule};
use crate::layout::tree::NodeKind;

pub const FILES: Rule = Rule {
    id: "sudoers-files",
    title: "sudo reads nothing but well-formed sudoers files that only root can change",
    check: files,
};

pub const GRANTS: Rule = Rule {
    id: "sudoers-grants",
    title: "sudo allows what the contract states, and nothing else to anybody",
    check: grants,
};

pub const DEFAULTS: Rule = Rule {
    id: "sudoers-defaults",
    title: "sudo's Defaults are the contract's",
    check: defaults,
};

/// Argument regular expressions came with it; older ones compare them as patterns, and never match.
const FIRST_WITH_REGEX: [u32; 3] = [1, 9, 10];

fn files(context: &Context, evidence: &mut Evidence) {
    let policy = &context.sudoers;
    evidence.checked(policy.files.len(), "sudoers files");
    for problem in &policy.problems {
        evidence.finding(&problem.at, None, "a statement that can be followed", &problem.what);
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
    // Files in the directory that nothing includes grant nothing now, and whatever the next edit includes.
    for (path, node) in context.tree.below("etc/sudoers.d") {
        let documentation = path == "etc/sudoers.d/README";
        if matches!(node.kind, NodeKind::File(_)) && !policy.files.iter().any(|f| f == path) && !documentation {
            evidence.file(path, node.layer, "only files that are included", "one that is not");
        }
    }
    other_sources(context, evidence);
}

/// sudo.conf can load another policy, nsswitch.conf can take grants from LDAP or SSSD.
fn other_sources(context: &Context, evidence: &mut Evidence) {
    let lines = |path: &str| -> Vec<(usize, String)> {
        let text = context
            .tree
            .content(path)
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        text.lines()
            .enumerate()
            .map(|(n, l)| (n + 1, l.trim().to_string()))
            .collect()
    };
    for (number, line) in lines("etc/sudo.conf") {
        if line.starts_with("Plugin") || line.starts_with("Path") {
            evidence.finding(
                format_args!("/etc/sudo.conf:{number}"),
                None,
                "sudo's own plugins and paths",
                line,
            );
        }
    }
    for (number, line) in lines("etc/nsswitch.conf") {
        if let Some(sources) = line.strip_prefix("sudoers:")
            && sources.trim() != "files"
        {
            evidence.finding(
                format_args!("/etc/nsswitch.conf:{number}"),
                None,
                "sudoers: files",
                line,
            );
        }
    }
}

/// The contract's statement for the sudo in the image.
fn allowed(context: &Context, evidence: &mut Evidence) -> Option<Allowed> {
    let version = context.package("sudo").and_then(|p| upstream(&p.version));
    let Some(version) = version else {
        evidence.finding("/var/lib/dpkg/status", None, "package sudo, with a version", "none");
        return None;
    };
    let bound = |text: &Option<String>| text.as_deref().and_then(upstream);
    let terms = &context.terms.sudoers;
    let at = terms.grants.iter().position(|g| {
        bound(&g.from).is_none_or(|from| version >= from) && bound(&g.before).is_none_or(|before| version < before)
    });
    let allowed = at.and_then(|at| parse_contract(terms).ok()?.into_iter().nth(at));
    if allowed.is_none() {
        evidence.finding(
            "/var/lib/dpkg/status",
            None,
            "a sudo that the contract has grants for",
            show(version),
        );
    }
    allowed
}

/// `1.9.13p3-1+deb12u1` into 1.9.13.
fn upstream(version: &str) -> Option<[u32; 3]> {
    let version = version.split_once(':').map_or(version, |(_epoch, v)| v);
    let mut parts = version.splitn(3, '.').map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part[..digits].parse().ok()
    });
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn show([major, minor, patch]: [u32; 3]) -> String {
    format!("sudo {major}.{minor}.{patch}")
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
    let version = context.package("sudo").and_then(|p| upstream(&p.version));
    if let Some(version) = version.filter(|v| *v < FIRST_WITH_REGEX) {
        for grant in &policy.grants {
            if matches!(grant.command.arguments, Arguments::Regex(_)) || grant.command.path.starts_with('^') {
                let found = format!("{} takes it for a pattern, which matches nothing", show(version));
                evidence.finding(&grant.at, None, "no regular expression", found);
            }
        }
    }
}

fn defaults(context: &Context, evidence: &mut Evidence) {
    let policy = &context.sudoers;
    let Some(allowed) = allowed(context, evidence) else {
        return;
    };
    evidence.checked(policy.settings.len(), "settings");
    let same = |a: &super::sudoers::Setting, b: &super::sudoers::Setting| {
        (&a.scope, &a.name, &a.value) == (&b.scope, &b.name, &b.value)
    };
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

#[cfg(test)]
mod tests {
    use super::upstream;

    #[test]
    fn debian_versions_of_sudo() {
        assert_eq!(upstream("1.9.13p3-1+deb12u1"), Some([1, 9, 13]));
        assert_eq!(upstream("1.9.9-1ubuntu2.4"), Some([1, 9, 9]));
        assert_eq!(upstream("1.9.16p2-3"), Some([1, 9, 16]));
        assert_eq!(upstream("1.9.10"), Some([1, 9, 10]));
        assert_eq!(upstream("1.9"), None);
    }
}
