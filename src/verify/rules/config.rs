//! Rules about the image configuration: process, user, environment, labels and history.

use oci_spec::image::{Arch, Os};

use super::Rule;
use crate::layout::Secret;
use crate::oci::Architecture;
use crate::verify::Context;
use crate::verify::contract::LabelFormat;
use crate::verify::verdict::Evidence;

pub const PROCESS: Rule = Rule {
    id: "config-process",
    title: "User, entrypoint, command and directory match the contract; no ports, no volumes",
    check: process,
};

pub const ENVIRONMENT: Rule = Rule {
    id: "config-environment",
    title: "The environment has exactly the contract's variables, and no secrets",
    check: environment,
};

pub const LABELS: Rule = Rule {
    id: "config-labels",
    title: "Every label in the contract is present and well formed",
    check: labels,
};

pub const PLATFORM: Rule = Rule {
    id: "config-platform",
    title: "The configuration is for the platform",
    check: platform,
};

pub const HISTORY: Rule = Rule {
    id: "config-history",
    title: "The history has an entry for every layer and contains no secret",
    check: history,
};

fn process(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.config;
    evidence.checked(7, "settings");
    let Some(config) = context.image.config.config() else {
        return evidence.finding("config", None, "an execution configuration", "none");
    };
    let show = |list: &[String]| format!("{list:?}");
    let list = |l: &Option<Vec<String>>| show(l.as_deref().unwrap_or_default());
    let text = |t: &Option<String>| t.clone().unwrap_or_default();

    let mut equal = |what: &str, expected: String, found: String| {
        if expected != found {
            evidence.finding(format_args!("config.{what}"), None, expected, found);
        }
    };
    equal("User", terms.user.clone(), text(config.user()));
    equal("Entrypoint", show(&terms.entrypoint), list(config.entrypoint()));
    equal("Cmd", show(&terms.cmd), list(config.cmd()));
    equal(
        "StopSignal",
        terms.stop_signal.clone().unwrap_or_default(),
        text(config.stop_signal()),
    );
    equal("ExposedPorts", show(&[]), list(config.exposed_ports()));
    equal("Volumes", show(&[]), list(config.volumes()));
    let directory = text(config.working_dir());
    if !terms.working_dir.contains(&directory) {
        evidence.finding(
            "config.WorkingDir",
            None,
            terms.working_dir.join(" or "),
            format_args!("{directory:?}"),
        );
    }
}

fn environment(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.config;
    let variables = context
        .image
        .config
        .config()
        .as_ref()
        .and_then(|c| c.env().as_deref())
        .unwrap_or_default();
    evidence.checked(variables.len(), "variables");
    let mut seen: Vec<&str> = Vec::new();
    for variable in variables {
        let Some((name, value)) = variable.split_once('=') else {
            evidence.finding("config.Env", None, "NAME=value", "a variable without a value");
            continue;
        };
        let at = format!("config.Env.{name}");
        if seen.contains(&name) {
            evidence.finding(&at, None, "one value", "set again");
        }
        seen.push(name);
        // Findings do not print values: one may be a secret.
        if name == "PATH" {
            if value != terms.path {
                evidence.finding(&at, None, &terms.path, value);
            }
        } else if let Some(wanted) = terms.env_values.get(name) {
            if wanted != value {
                evidence.finding(&at, None, wanted, "another value");
            }
        } else if !terms.env.matches(name) {
            evidence.finding(&at, None, "only variables in the contract", "it is set");
        }
        if looks_secret(variable) {
            evidence.finding(&at, None, "no secret", "it looks like one");
        }
    }
    for name in terms.env_values.keys().map(String::as_str).chain(["PATH"]) {
        if !seen.contains(&name) {
            evidence.finding(format_args!("config.Env.{name}"), None, "it is set", "it is not");
        }
    }
}

/// A value of a variable whose name suggests a secret, a URL with a password, or a token in a well-known format.
fn looks_secret(text: &str) -> bool {
    const NAMES: [&str; 7] = [
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "private_key",
    ];
    const TOKENS: [&str; 8] = [
        "ghp_",
        "gho_",
        "glpat-",
        "github_pat_",
        "xoxb-",
        "akia",
        "-----begin",
        "pypi-agei",
    ];
    let in_words = text.split([' ', '\t', '\n', '"', '\'', ';', '&', '|']).any(|word| {
        let lower = word.to_ascii_lowercase();
        let assigned = lower
            .split_once('=')
            .is_some_and(|(name, value)| !value.is_empty() && NAMES.iter().any(|n| name.contains(n)));
        let token = TOKENS.iter().any(|t| {
            lower.find(t).is_some_and(|at| {
                let before = lower[..at].chars().next_back();
                lower.len() > at + 8 && before.is_none_or(|c| !c.is_ascii_alphanumeric())
            })
        });
        assigned && !lower.contains("/run/secrets") || token || has_password(word)
    });
    in_words || Secret::find(text.as_bytes()).is_some()
}

/// `scheme://user:password@host`.
fn has_password(word: &str) -> bool {
    word.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
}

fn labels(context: &Context, evidence: &mut Evidence) {
    let config = context.image.config.config();
    let found = config.as_ref().and_then(|c| c.labels().as_ref());
    evidence.checked(found.map_or(0, |l| l.len()), "labels");
    let get = |name: &str| found.and_then(|l| l.get(name)).map(String::as_str);
    for (name, format) in &context.terms.config.labels {
        let at = format_args!("config.Labels.{name}").to_string();
        match get(name) {
            None => evidence.finding(&at, None, describe(*format), "no such label"),
            Some(value) if !well_formed(*format, value) => {
                evidence.finding(&at, None, describe(*format), format_args!("{value:?}"));
            }
            Some(_) => {}
        }
    }
    for (name, wanted) in context.expected.labels {
        let value = get(name);
        if value != Some(wanted) {
            evidence.finding(
                format_args!("config.Labels.{name}"),
                None,
                format_args!("{wanted:?}"),
                value.map_or("no such label".to_string(), |v| format!("{v:?}")),
            );
        }
    }
    for (name, value) in found.into_iter().flatten() {
        if looks_secret(&format!("{name}={value}")) {
            evidence.finding(
                format_args!("config.Labels.{name}"),
                None,
                "no secret",
                "it looks like one",
            );
        }
    }
}

fn describe(format: LabelFormat) -> &'static str {
    match format {
        LabelFormat::Text => "a text",
        LabelFormat::Timestamp => "a timestamp (RFC 3339)",
        LabelFormat::Digest => "a digest (sha256:…)",
        LabelFormat::Url => "an https:// URL",
        LabelFormat::Revision => "a git commit or a released version",
    }
}

fn well_formed(format: LabelFormat, value: &str) -> bool {
    let hexadecimal = |text: &str, n| text.len() == n && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match format {
        LabelFormat::Text => !value.trim().is_empty() && !value.chars().any(char::is_control),
        LabelFormat::Timestamp => value.parse::<jiff::Timestamp>().is_ok(),
        LabelFormat::Digest => value.strip_prefix("sha256:").is_some_and(|h| hexadecimal(h, 64)),
        LabelFormat::Url => {
            url::Url::parse(value).is_ok_and(|u| u.scheme() == "https" && u.password().is_none() && u.has_host())
        }
        LabelFormat::Revision => hexadecimal(value, 40) || value.parse::<pep440_rs::Version>().is_ok(),
    }
}

fn platform(context: &Context, evidence: &mut Evidence) {
    evidence.checked(2, "settings");
    let config = &context.image.config;
    let wanted = match context.platform.architecture() {
        Architecture::Amd64 => Arch::Amd64,
        Architecture::Arm64 => Arch::ARM64,
    };
    if *config.os() != Os::Linux {
        evidence.finding("os", None, "linux", config.os());
    }
    if *config.architecture() != wanted {
        evidence.finding("architecture", None, wanted, config.architecture());
    }
}

fn history(context: &Context, evidence: &mut Evidence) {
    let config = &context.image.config;
    let entries = config.history().as_deref().unwrap_or_default();
    evidence.checked(entries.len(), "history entries");
    let layers = entries.iter().filter(|h| !h.empty_layer().unwrap_or(false)).count();
    let diffs = config.rootfs().diff_ids().len();
    // The specification allows an image without a history.
    if !entries.is_empty() && layers != diffs {
        evidence.finding("history", None, format_args!("{diffs} entries with a layer"), layers);
    }
    for (n, entry) in entries.iter().enumerate() {
        let texts = [entry.created_by(), entry.comment(), entry.author()];
        if texts.into_iter().flatten().any(|t| looks_secret(t)) {
            evidence.finding(format_args!("history[{n}]"), None, "no secret", "it looks like one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_and_by_form() {
        for text in [
            "PIP_INDEX_URL=https://me:hunter2@index.example/simple",
            "RUN |1 REGISTRY_PASSWORD=x /bin/sh -c true",
            "GH=ghp_0123456789abcdef0123456789abcdef0123",
            "-----BEGIN RSA PRIVATE KEY-----",
            "AWS=AKIAIOSFODNN7EXAMPLE",
        ] {
            assert!(looks_secret(text), "{text}");
        }
        for text in [
            "PATH=/usr/bin",
            "RUN --mount=type=secret,id=pip_index pip install x",
            "PASSWORD=",
            "CA=/run/secrets/token",
            "https://opendev.org/openstack/ovn-bgp-agent",
            "git clone ssh://git@opendev.org/x",
        ] {
            assert!(!looks_secret(text), "{text}");
        }
    }

    #[test]
    fn formats() {
        assert!(well_formed(LabelFormat::Timestamp, "2026-01-01T00:00:00Z"));
        assert!(!well_formed(LabelFormat::Timestamp, "2026-01-01"));
        assert!(well_formed(LabelFormat::Digest, &format!("sha256:{}", "a".repeat(64))));
        assert!(!well_formed(LabelFormat::Digest, "sha256:abc"));
        assert!(well_formed(LabelFormat::Revision, "7.0.0"));
        assert!(!well_formed(LabelFormat::Revision, "master"));
    }
}
