//! Rule about the agent's requirements, resolved from the metadata as an installer does for this platform.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, Requirement, VerbatimUrl, VersionOrUrl};

use super::Rule;
use crate::image::packages::python::{self, Distribution, Module};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const REQUIREMENTS: Rule = Rule {
    id: "python-requirements",
    title: "The agent and all its requirements are on the interpreter's search path",
    check: requirements,
};

/// The marker variables (PEP 508) of the image's interpreter.
pub fn marker_environment(context: &Context) -> Option<MarkerEnvironment> {
    python::marker_environment(
        &context.expected.distro.python,
        context.dpkg.as_deref().unwrap_or_default(),
        context.platform.architecture().gnu_name(),
    )
}

pub fn parse(text: &str) -> Result<Requirement<VerbatimUrl>, String> {
    Requirement::from_str(text).map_err(|e| e.message.to_string())
}

fn requirements(context: &Context, evidence: &mut Evidence) {
    let python = &context.python;
    for (path, what) in &python.problems {
        evidence.finding(format_args!("/{path}"), None, "metadata of a Python distribution", what);
    }
    let Some(environment) = marker_environment(context) else {
        return evidence.finding(
            "distros.python",
            None,
            "a Python version",
            &context.expected.distro.python,
        );
    };
    let interpreter = environment.python_full_version().version.clone();
    let suffixes = context.extension_suffixes();

    // An extra adds requirements to a distribution that may already have been visited without the extra.
    let mut seen: BTreeMap<String, BTreeSet<ExtraName>> = BTreeMap::new();
    let mut pending: VecDeque<(String, Vec<ExtraName>, String)> = VecDeque::new();
    pending.push_back((
        context.expected.project.to_string(),
        Vec::new(),
        "the image".to_string(),
    ));
    while let Some((name, extras, because)) = pending.pop_front() {
        let Some(distribution) = python.distribution(&name) else {
            evidence.finding(
                "sys.path",
                None,
                format_args!("{name}, required by {because}"),
                "not installed",
            );
            continue;
        };
        let known = seen.get(&name);
        if known.is_some_and(|known| extras.iter().all(|e| known.contains(e))) {
            continue;
        }
        if known.is_none() {
            usable(context, evidence, distribution, &interpreter, &suffixes);
        }
        let all = seen.entry(name).or_default();
        all.extend(extras);
        let extras: Vec<ExtraName> = all.iter().cloned().collect();
        for text in &distribution.requires {
            let layer = context.tree.get(&distribution.metadata).map(|n| n.layer);
            let at = format!("/{}/METADATA", distribution.metadata);
            let requirement = match parse(text) {
                Ok(requirement) => requirement,
                Err(e) => {
                    evidence.finding(at, layer, "requirements by PEP 508", format_args!("{text}: {e}"));
                    continue;
                }
            };
            if !requirement.marker.evaluate(&environment, &extras) {
                continue;
            }
            let required = requirement.name.to_string();
            if let (Some(VersionOrUrl::VersionSpecifier(specifiers)), Some(found)) =
                (&requirement.version_or_url, python.distribution(&required))
                && !satisfies(specifiers, &found.version)
            {
                evidence.finding(at, layer, text, format_args!("{required} {}", found.version));
            }
            pending.push_back((
                required,
                requirement.extras,
                format!("{} {}", distribution.name, distribution.version),
            ));
        }
    }
    evidence.checked(seen.len(), "distributions");

    if let Some(reference) = context.expected.reference.and_then(|r| Version::from_str(r).ok())
        && let Some(agent) = python.distribution(context.expected.project)
        && Version::from_str(&agent.version).ok() != Some(reference.clone())
    {
        evidence.finding(format_args!("/{}", agent.metadata), None, reference, &agent.version);
    }
}

fn satisfies(specifiers: &VersionSpecifiers, version: &str) -> bool {
    Version::from_str(version).is_ok_and(|v| specifiers.contains(&v))
}

/// The distribution supports this interpreter, and its modules are on the search path.
fn usable(
    context: &Context,
    evidence: &mut Evidence,
    distribution: &Distribution,
    interpreter: &Version,
    suffixes: &[String],
) {
    let layer = context.tree.get(&distribution.metadata).map(|n| n.layer);
    let at = format!("/{}", distribution.metadata);
    if let Some(text) = &distribution.requires_python
        && let Ok(specifiers) = VersionSpecifiers::from_str(text)
        && !specifiers.contains(interpreter)
    {
        evidence.finding(
            &at,
            layer,
            format_args!("Python {text}"),
            format_args!("Python {interpreter}"),
        );
    }
    let modules = distribution.modules();
    if modules.is_empty() && distribution.record.as_ref().is_none_or(Vec::is_empty) {
        evidence.finding(
            &at,
            layer,
            "a RECORD or top_level.txt that lists its modules",
            "neither",
        );
    }
    for module in modules {
        let home = format!("{}/", distribution.site);
        match context.python.find_module(context.tree, module, suffixes) {
            None => evidence.finding(
                &at,
                layer,
                format_args!("module {module} importable"),
                "not found on the path",
            ),
            Some(Module::File(file)) if !file.starts_with(&home) => {
                evidence.finding(
                    &at,
                    layer,
                    format_args!("module {module} from /{home}"),
                    format_args!("/{file}"),
                );
            }
            Some(Module::Namespace(dirs)) => {
                let found = format!("only directories without __init__: /{}", dirs.join(", /"));
                evidence.finding(&at, layer, format_args!("module {module} importable"), found);
            }
            Some(Module::File(_)) => {}
        }
    }
}
