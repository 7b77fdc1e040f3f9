//! Rules about commands, resolved as for the agent: by PATH, through symbolic links, with its permissions.

use super::Rule;
use crate::layout::tree::{NodeKind, Unresolved};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const REQUIRED: Rule = Rule {
    id: "commands",
    title: "Every command in the contract is on PATH, and the agent's user can run it",
    check: required,
};

pub const FORBIDDEN: Rule = Rule {
    id: "forbidden-commands",
    title: "No compiler, package installer, daemon or downloader is on PATH",
    check: forbidden,
};

/// Resolves a command as execvp(3) does for the agent's user.
pub fn find(context: &Context, name: &str) -> Result<String, String> {
    if name.contains('/') {
        return runnable(context, name);
    }
    let path = context.env("PATH").unwrap_or_default();
    let mut why = "not found".to_string();
    for dir in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = format!("{dir}/{name}");
        if context.tree.get(&candidate).is_none() && context.tree.resolve(&candidate).is_err() {
            continue;
        }
        match runnable(context, &candidate) {
            Ok(found) => return Ok(found),
            Err(e) => why = format!("{candidate}: {e}"),
        }
    }
    Err(why)
}

fn runnable(context: &Context, path: &str) -> Result<String, String> {
    let (resolved, node) = context.tree.resolve(path).map_err(|e| match e {
        Unresolved::Missing(at) if at == path.trim_start_matches('/') => "not found".to_string(),
        Unresolved::Missing(at) => format!("its link leads to /{at}, which does not exist"),
        Unresolved::Loop(at) => format!("too many symbolic links at /{at}"),
    })?;
    if !matches!(node.kind, NodeKind::File(_)) {
        return Err("not a regular file".to_string());
    }
    if !context.agent_has(node, 0o1) || !context.agent_reaches(&resolved) {
        return Err(format!(
            "mode {:04o}, owner {}:{}: {} cannot run it",
            node.mode, node.uid, node.gid, context.expected.identity.name
        ));
    }
    Ok(resolved)
}

fn required(context: &Context, evidence: &mut Evidence) {
    let commands = &context.terms.commands.required;
    evidence.checked(commands.len(), "commands");
    for command in commands {
        if let Err(found) = find(context, command) {
            let path = context.env("PATH").unwrap_or_default();
            let expected = if command.contains('/') {
                "a command".into()
            } else {
                format!("a command on PATH ({path})")
            };
            evidence.finding(command, None, expected, found);
        }
    }
}

fn forbidden(context: &Context, evidence: &mut Evidence) {
    // The usual directories of commands, checked whatever PATH is.
    const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/frr:/usr/games";
    let path = context.env("PATH").unwrap_or_default();
    let mut dirs: Vec<String> = path
        .split(':')
        .chain(USUAL.split(':'))
        .filter_map(|d| context.tree.resolve(d).ok())
        .map(|(dir, _)| dir)
        .collect();
    dirs.sort();
    dirs.dedup();
    let mut count = 0;
    for dir in &dirs {
        for (name, node) in context.tree.children(dir) {
            count += 1;
            if let Some(pattern) = context.terms.commands.forbidden.find(name) {
                evidence.file(
                    &format!("{dir}/{name}"),
                    node.layer,
                    format_args!("no command {pattern}"),
                    name,
                );
            }
        }
    }
    evidence.checked(count, "commands");
}
