//! The modules of src/ have one order: a module imports only modules that come before it. So there are no import circles.

#[path = "support/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use imports::{imports, sources};

/// The modules from the bottom up. The map in src/lib.rs has the same order.
const ORDER: &[&str] = &[
    "failure",
    "signals",
    "optional_arg",
    "asn",
    "env_file",
    "files",
    "paths",
    "rt_tables",
    "netlink",
    "network",
    "bgp_peer",
    "node",
    "agent_options",
    "agent_pid",
    "vty",
    "vtysh",
    "bgp",
    "peer",
    "probe",
    "mapping",
    "frr_config",
    "report",
    "sysctl",
    "preflight",
    "frr_init",
    "drain",
    "agent",
    "health",
    "privsep",
    "image_repo_sync",
    "cli",
];

#[test]
fn modules_import_only_modules_before_them() {
    let src = src();
    let mut breaches = Vec::new();
    for file in sources(&src) {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        breaches.extend(check(name, &fs::read_to_string(&file).unwrap()));
    }
    assert_eq!(breaches, Vec::<String>::new());
}

#[test]
fn every_module_has_a_place_in_the_order_and_in_the_map() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let mut declared: Vec<&str> = lib.lines().filter_map(declaration).collect();
    declared.sort_unstable();
    let mut ordered = ORDER.to_vec();
    ordered.sort_unstable();
    assert_eq!(declared, ordered, "`mod` lines of lib.rs and ORDER");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let map: Vec<&str> = rows
        .filter_map(|row| row.trim_start_matches('[').strip_prefix('`')?.split('`').next())
        .collect();
    assert_eq!(map, ORDER, "the map of lib.rs and ORDER");
}

#[test]
fn a_breach_is_reported_with_file_and_line() {
    for (text, expected) in [
        ("use crate::cli::main;", "asn.rs:1: asn must not import cli"),
        ("\n    use crate::cli;", "asn.rs:2: asn must not import cli"),
        (
            "use crate::{failure, files::{self, Owner},\n    health::run};",
            "asn.rs:2: asn must not import health",
        ),
        (
            "\n\nfn f() { crate::drain::run(); }",
            "asn.rs:3: asn must not import drain",
        ),
        ("use crate::unknown;", "asn.rs:1: unknown is not in ORDER"),
    ] {
        let found = check("asn.rs", text);
        assert_eq!(found.last().map(String::as_str), Some(expected), "{text}");
    }
    let nested = check("health/state.rs", "use crate::privsep::main;");
    assert_eq!(nested, ["health/state.rs:1: health must not import privsep"]);
    for text in [
        "use crate::failure::Failure;",
        "use crate::asn::Asn;",
        "// See crate::cli.",
        "use serde::Serialize;",
    ] {
        assert_eq!(check("asn.rs", text), Vec::<String>::new(), "{text}");
    }
}

/// The breaches in one file, each as `FILE:LINE: PROBLEM`. `file` is relative to src/.
fn check(file: &str, text: &str) -> Vec<String> {
    let module = file.split(['/', '.']).next().unwrap();
    if ["lib", "main"].contains(&module) {
        return Vec::new();
    }
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    let problem = |imported: &str| match (place(imported), place(module)) {
        (None, _) => Some(format!("{imported} is not in ORDER")),
        (_, None) => Some(format!("{module} is not in ORDER")),
        (Some(theirs), Some(own)) => (theirs > own).then(|| format!("{module} must not import {imported}")),
    };
    imports(text)
        .into_iter()
        .filter_map(|(line, imported)| Some(format!("{file}:{line}: {}", problem(&imported)?)))
        .collect()
}

fn declaration(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ").unwrap_or(line);
    rest.strip_prefix("mod ")?.strip_suffix(';')
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
