//! Rules about the interpreter, its distributions and its scripts.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::{Operator, Version};
use pep508_rs::VersionOrUrl;

use super::requirements::{marker_environment, parse};
use super::{Rule, commands};
use crate::image::packages::python::Module;
use crate::layout::tree::{File, NodeKind};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const INTERPRETER: Rule = Rule {
    id: "interpreter",
    title: "python3 is the distro's interpreter of the expected version, with its standard library",
    check: interpreter,
};

pub const DISTRIBUTIONS: Rule = Rule {
    id: "python-distributions",
    title: "Python distributions are installed once and completely",
    check: distributions,
};

pub const LOCK: Rule = Rule {
    id: "python-lock",
    title: "The installed versions match the lock",
    check: lock,
};

pub const MODULES: Rule = Rule {
    id: "python-modules",
    title: "Every module in the contract is present, and extension modules are for this interpreter",
    check: modules,
};

pub const SCRIPTS: Rule = Rule {
    id: "console-scripts",
    title: "Console scripts are present and executable, and every script's interpreter exists",
    check: scripts,
};

fn interpreter(context: &Context, evidence: &mut Evidence) {
    let version = &context.expected.distro.python;
    evidence.checked(1, "interpreters");
    let wanted = format!("usr/bin/python{version}");
    match commands::find(context, "python3") {
        Err(found) => evidence.finding("/usr/bin/python3", None, "python3 on PATH", found),
        Ok(found) if found != wanted => {
            evidence.finding("python3", None, format_args!("/{wanted}"), format_args!("/{found}"))
        }
        Ok(_) => {}
    }
    match context.tree.resolve("/usr/bin/python3") {
        Err(e) => evidence.finding("/usr/bin/python3", None, format_args!("a link to /{wanted}"), e),
        Ok((found, node)) if found != wanted => {
            evidence.file(
                "usr/bin/python3",
                node.layer,
                format_args!("/{wanted}"),
                format_args!("/{found}"),
            );
        }
        Ok((path, node)) => {
            let is_elf = matches!(&node.kind, NodeKind::File(f) if f.head.starts_with(b"\x7fELF"));
            if !is_elf {
                evidence.file(&path, node.layer, "an ELF executable", "another type");
            }
        }
    }
    let package = format!("python{version}-minimal");
    match context.package(&package) {
        None => evidence.finding(
            "/var/lib/dpkg/status",
            None,
            format_args!("{package} installed"),
            "it is not",
        ),
        Some(p) if !p.version.starts_with(&format!("{version}.")) => {
            evidence.finding(
                "/var/lib/dpkg/status",
                None,
                format_args!("{package} {version}.x"),
                &p.version,
            );
        }
        Some(_) => {}
    }
    for module in [
        "os.py",
        "encodings/__init__.py",
        "json/__init__.py",
        "asyncio/__init__.py",
    ] {
        let path = format!("usr/lib/python{version}/{module}");
        if context.tree.resolve(&path).is_err() {
            evidence.finding(format_args!("/{path}"), None, "the standard library", "it is missing");
        }
    }
    for (path, lines) in &context.python.code {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !context.terms.python.pth_code.matches(name) {
            let layer = context.tree.get(path).map(|n| n.layer);
            evidence.finding(
                format_args!("/{path}"),
                layer,
                "no code run at every start",
                lines.join("; "),
            );
        }
    }
}

fn distributions(context: &Context, evidence: &mut Evidence) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut count = 0;
    for distribution in &context.python.distributions {
        let layer = context.tree.get(&distribution.metadata).map(|n| n.layer);
        let at = format!("/{}", distribution.metadata);
        if let Some(other) = first.insert(&distribution.name, &distribution.metadata) {
            evidence.finding(
                &at,
                layer,
                format_args!("one distribution {}", distribution.name),
                format_args!("/{other} too"),
            );
        }
        if Version::from_str(&distribution.version).is_err() {
            evidence.finding(
                &at,
                layer,
                "a version by PEP 440",
                format_args!("{:?}", distribution.version),
            );
        }
        for entry in distribution.record.iter().flatten() {
            count += 1;
            // An installer lists the bytecode that it compiled; the rules about bytecode and the build's list check those files.
            if entry.path.ends_with(".pyc") || context.terms.python.trimmed.matches(&entry.path) {
                continue;
            }
            match context.tree.get(&entry.path).map(|n| (&n.kind, n.layer)) {
                None => evidence.finding(
                    format_args!("/{}", entry.path),
                    None,
                    format_args!("in RECORD of {at}"),
                    "missing",
                ),
                Some((NodeKind::File(file), layer)) => {
                    if let Some(found) = differs(file, entry.size, entry.sha256) {
                        evidence.file(&entry.path, layer, format_args!("as in RECORD of {at}"), found);
                    }
                }
                Some((_, layer)) => evidence.file(&entry.path, layer, "a regular file", "another type"),
            }
        }
    }
    evidence.checked(count, "files of RECORDs");
}

fn differs(file: &File, size: Option<u64>, sha256: Option<[u8; 32]>) -> Option<String> {
    if let Some(size) = size.filter(|s| *s != file.size) {
        return Some(format!("{} bytes instead of {size}", file.size));
    }
    let (recorded, found) = (sha256?, file.sha256?);
    (recorded != found).then(|| format!("sha256 {}", hex::encode(found)))
}

/// Parses the pins of a requirements file: `name==version ; marker \` and `--hash` lines.
fn lock(context: &Context, evidence: &mut Evidence) {
    let Some(text) = context.expected.lock else {
        return evidence.checked(0, "pins (no lock was given)");
    };
    let Some(environment) = marker_environment(context) else {
        return evidence.finding(
            "distros.python",
            None,
            "a Python version",
            &context.expected.distro.python,
        );
    };
    let mut pins: BTreeMap<String, Version> = BTreeMap::new();
    for line in text.lines() {
        let line = line
            .split(" --hash")
            .next()
            .unwrap_or_default()
            .split(" #")
            .next()
            .unwrap_or_default();
        let line = line.trim().trim_end_matches('\\').trim();
        if line.is_empty() || line.starts_with(['#', '-']) {
            continue;
        }
        let pin = parse(line).map_err(|e| e.to_string()).and_then(|r| {
            if !r.marker.evaluate(&environment, &[]) {
                return Ok(None);
            }
            match r.version_or_url {
                Some(VersionOrUrl::VersionSpecifier(s)) if s.len() == 1 && *s[0].operator() == Operator::Equal => {
                    Ok(Some((r.name.to_string(), s[0].version().clone())))
                }
                _ => Err("not a pin".to_string()),
            }
        });
        match pin {
            Ok(Some((name, version))) => drop(pins.insert(name, version)),
            Ok(None) => {}
            Err(e) => evidence.finding("the lock", None, "name==version", format_args!("{line}: {e}")),
        }
    }
    evidence.checked(pins.len(), "pins");
    let ours = |site: &str| site.starts_with("usr/local/");
    let installed = context.python.distributions.iter().filter(|d| ours(&d.site));
    for distribution in installed {
        let at = format!("/{}", distribution.metadata);
        match pins.get(&distribution.name) {
            Some(pin) if Version::from_str(&distribution.version).ok().as_ref() == Some(pin) => {}
            Some(pin) => evidence.finding(
                at,
                None,
                format_args!("{}=={pin}", distribution.name),
                &distribution.version,
            ),
            // Built from git, the project has a commit and is not in the lock.
            None if distribution.name == context.expected.project => {}
            None => evidence.finding(
                at,
                None,
                "only what is in the lock",
                format_args!("{} {}", distribution.name, distribution.version),
            ),
        }
    }
    for (name, pin) in &pins {
        if context.python.distribution(name).is_none_or(|d| !ours(&d.site)) {
            evidence.finding(
                "sys.path",
                None,
                format_args!("{name}=={pin}, as in the lock"),
                "not installed",
            );
        }
    }
}

fn modules(context: &Context, evidence: &mut Evidence) {
    let suffixes = context.extension_suffixes();
    let mut count = context.terms.python.modules.len();
    for name in &context.terms.python.modules {
        match context.python.find_module(context.tree, name, &suffixes) {
            Some(Module::File(_)) => {}
            Some(Module::Namespace(dirs)) => {
                evidence.finding(
                    format_args!("/{}", dirs.join(", /")),
                    None,
                    format_args!("module {name}"),
                    "no __init__",
                );
            }
            None => evidence.finding("sys.path", None, format_args!("module {name}"), "not found"),
        }
    }
    for site in context
        .python
        .entries
        .iter()
        .filter(|e| e.ends_with("-packages") || e.ends_with("lib-dynload"))
    {
        for (path, node) in context.tree.below(site) {
            let tagged = path
                .rsplit('/')
                .next()
                .and_then(|n| n.find(".cpython-").map(|at| &n[at..]));
            if let Some(suffix) = tagged.filter(|s| s.ends_with(".so")) {
                count += 1;
                if suffix != suffixes[0] {
                    evidence.file(
                        path,
                        node.layer,
                        format_args!("an extension module *{}", suffixes[0]),
                        suffix,
                    );
                }
            }
        }
    }
    evidence.checked(count, "modules");
}

fn scripts(context: &Context, evidence: &mut Evidence) {
    let suffixes = context.extension_suffixes();
    for name in &context.terms.python.scripts {
        let path = format!("/usr/local/bin/{name}");
        let entry = context
            .python
            .distributions
            .iter()
            .find_map(|d| d.scripts.iter().find(|s| s.name == *name));
        match entry {
            None => evidence.finding(&path, None, "an entry point of an installed distribution", "none"),
            Some(script) => match context.python.find_module(context.tree, &script.module, &suffixes) {
                Some(Module::File(_)) => {}
                _ => evidence.finding(
                    &path,
                    None,
                    format_args!("module {} importable", script.module),
                    "it is not",
                ),
            },
        }
        if let Err(found) = commands::find(context, &path) {
            evidence.finding(&path, None, "a command the agent's user can run", found);
        }
    }
    let mut count = 0;
    for dir in ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"] {
        for (name, node) in context.tree.children(dir) {
            let NodeKind::File(file) = &node.kind else { continue };
            let Some(shebang) = shebang(&file.head) else { continue };
            count += 1;
            let path = format!("{dir}/{name}");
            let found = match shebang {
                Err(what) => Err(what.to_string()),
                Ok((interpreter, argument)) => match (interpreter, argument) {
                    ("/usr/bin/env", Some(command)) => {
                        commands::find(context, command).map_err(|e| format!("{command}: {e}"))
                    }
                    _ => commands::find(context, interpreter).map_err(|e| format!("{interpreter}: {e}")),
                },
            };
            if let Err(found) = found {
                evidence.file(&path, node.layer, "an interpreter that exists", found);
            }
        }
    }
    evidence.checked(count, "scripts");
}

type Shebang<'a> = (&'a str, Option<&'a str>);

/// The interpreter of a `#!` line, and its first argument that is not an option.
fn shebang(head: &[u8]) -> Option<Result<Shebang<'_>, &'static str>> {
    let rest = head.strip_prefix(b"#!")?;
    let Some(end) = rest.iter().position(|b| *b == b'\n') else {
        return Some(Err("a first line that does not end"));
    };
    let Ok(line) = std::str::from_utf8(&rest[..end]) else {
        return Some(Err("a first line that is not UTF-8"));
    };
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next().filter(|w| w.starts_with('/')) else {
        return Some(Err("a first line without an absolute path"));
    };
    Some(Ok((
        interpreter,
        words.find(|w| !w.starts_with('-') && !w.contains('=')),
    )))
}

#[cfg(test)]
mod tests {
    use super::shebang;

    #[test]
    fn shebangs() {
        assert_eq!(
            shebang(b"#!/usr/bin/python3\nimport x"),
            Some(Ok(("/usr/bin/python3", None)))
        );
        assert_eq!(
            shebang(b"#! /usr/bin/env -S python3 -E\n"),
            Some(Ok(("/usr/bin/env", Some("python3"))))
        );
        assert!(matches!(shebang(b"#!python\n"), Some(Err(_))));
        assert!(matches!(shebang(b"#!/very/long"), Some(Err(_))));
        assert_eq!(shebang(b"\x7fELF"), None);
    }
}
