//! The rooms of the house: which module of `src/` may import which, and how long a file may be.
//!
//! `src/lib.rs` draws the same table as a map. A module that is missing here, or that imports what its row does not name,
//! fails the test with the file and the line.

#[path = "../runtime/tests/support/imports.rs"]
mod imports;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use imports::{imports, sources};

/// A top-level module, and the modules that it may import. Each row may name modules of the rows above it only, so there
/// is no circle.
type Room = (&'static str, &'static [&'static str]);

/// Lines of a file.
const LONGEST: usize = 500;

/// Lines of a subcommand: it reads arguments, calls stages in order and prints.
const LONGEST_COMMAND: usize = 150;

/// Stands for every row above.
const ALL: &[&str] = &["*"];

const SRC: &[Room] = &[
    ("oci", &[]),
    ("progress", &[]),
    ("util", &["oci"]),
    ("layout", &["oci", "progress", "util"]),
    ("engine", &["oci", "progress", "util"]),
    ("config", &["oci", "engine"]),
    ("registry", &["oci", "progress", "util", "layout", "config"]),
    (
        "image",
        &["oci", "progress", "util", "layout", "engine", "config", "registry"],
    ),
    ("buildkit", &["oci", "progress", "util", "layout", "engine", "config"]),
    ("builders", &["oci", "progress", "util", "engine", "config", "buildkit"]),
    (
        "base",
        &[
            "oci", "progress", "util", "layout", "engine", "config", "registry", "buildkit",
        ],
    ),
    (
        "plan",
        &["oci", "progress", "util", "config", "buildkit", "builders", "base"],
    ),
    ("verify", &["oci", "util", "layout", "config", "image", "plan"]),
    ("sign", &["oci", "util", "layout", "registry"]),
    ("attest", &["oci", "util", "layout", "image", "base", "plan", "sign"]),
    ("publish", &["oci", "progress", "util", "layout", "registry", "verify"]),
    (
        "build",
        &[
            "oci", "progress", "util", "layout", "engine", "config", "registry", "image", "buildkit", "builders",
            "base", "plan", "verify", "sign", "attest", "publish",
        ],
    ),
    (
        "report",
        &[
            "oci", "progress", "util", "config", "registry", "base", "plan", "publish", "verify", "build",
        ],
    ),
    (
        "doctor",
        &[
            "oci", "util", "engine", "config", "buildkit", "builders", "base", "plan",
        ],
    ),
    ("cli", &["oci", "layout", "config", "plan", "sign"]),
    ("commands", ALL),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The module that a file below `src/` belongs to; `None` for the files of the crate itself.
fn module(file: &Path) -> Option<String> {
    let first = file.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main"].contains(&name)).then(|| name.to_string())
}

/// What a file imports against the table, one line each.
fn breaches(table: &[Room], file: &Path, text: &str) -> String {
    let Some(name) = module(file) else { return String::new() };
    let Some(place) = table.iter().position(|(room, _)| *room == name) else {
        return format!("{}: the module {name} is not in the table\n", file.display());
    };
    let (above, allowed) = (&table[..place], table[place].1);
    let mut text_of = String::new();
    for (line, other) in imports(text) {
        let is_room = table.iter().any(|(room, _)| *room == other);
        let may = other == name
            || allowed.contains(&other.as_str())
            || allowed == ALL && above.iter().any(|(room, _)| *room == other);
        if is_room && !may {
            let _ = writeln!(text_of, "{}:{line}: {name} must not import {other}", file.display());
        }
    }
    text_of
}

#[test]
fn every_row_names_rows_above_it() {
    for (place, (room, allowed)) in SRC.iter().enumerate() {
        for other in allowed.iter().filter(|other| **other != "*") {
            let is_above = SRC[..place].iter().any(|(above, _)| above == other);
            assert!(
                is_above,
                "{room} may not import {other}: it is not above {room} in the table"
            );
        }
    }
}

#[test]
fn modules_import_what_their_row_allows() {
    let src = root().join("src");
    let mut found = String::new();
    for path in sources(&src) {
        let file = path.strip_prefix(&src).unwrap();
        found += &breaches(SRC, file, &fs::read_to_string(&path).unwrap());
    }
    assert!(
        found.is_empty(),
        "imports against the table of tests/architecture.rs:\n{found}"
    );
}

/// The rows of the map in `src/lib.rs`: a module, and the text of the last column, what it imports.
fn map() -> Vec<(String, String)> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .map(|row| {
            let name = row.split('`').next().unwrap();
            let imports = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
            (name.to_string(), imports.to_string())
        })
        .collect()
}

#[test]
fn the_map_of_the_library_agrees_with_the_table() {
    let map = map();
    let modules: Vec<&str> = map.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(modules, SRC.iter().map(|(room, _)| *room).collect::<Vec<_>>());
    for ((name, imports), (_, allowed)) in map.iter().zip(SRC).filter(|(_, (_, allowed))| *allowed != ALL) {
        for word in imports.split(|c: char| !c.is_ascii_alphabetic()) {
            let is_room = SRC.iter().any(|(room, _)| *room == word);
            assert!(
                !is_room || allowed.contains(&word),
                "src/lib.rs says that {name} imports {word}; the table does not"
            );
        }
    }
}

/// The files of a directory tree with more lines than `longest`.
fn long_files(directory: &Path, longest: usize) -> String {
    let mut found = String::new();
    for path in sources(directory) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > longest {
            let _ = writeln!(found, "{}: {lines} lines", path.display());
        }
    }
    found
}

#[test]
fn no_file_is_too_long() {
    let found: String = ["src", "tests", "runtime/src", "runtime/tests"]
        .map(|name| long_files(&root().join(name), LONGEST))
        .concat();
    assert!(
        found.is_empty(),
        "files over {LONGEST} lines; split them by what they do:\n{found}"
    );
}

#[test]
fn no_subcommand_is_too_long() {
    let found = long_files(&root().join("src/commands"), LONGEST_COMMAND);
    assert!(
        found.is_empty(),
        "subcommands over {LONGEST_COMMAND} lines; move logic to its stage:\n{found}"
    );
}

#[test]
fn a_breach_is_found_with_its_line() {
    let table: &[Room] = &[("low", &[]), ("middle", &["low"]), ("high", ALL)];
    let check = |file: &str, text: &str| breaches(table, Path::new(file), text);
    assert_eq!(
        check("low/a.rs", "\nuse crate::high::X;\n"),
        "low/a.rs:2: low must not import high\n"
    );
    assert_eq!(
        check("middle.rs", "use crate::{\n    low::{self, Y},\n    high,\n};\n"),
        "middle.rs:3: middle must not import high\n"
    );
    assert_eq!(
        check("low.rs", "fn f() {\n    crate::middle::g();\n}\n"),
        "low.rs:2: low must not import middle\n"
    );
    for (file, text) in [
        ("high/b.rs", "use crate::low::X;\nuse crate::middle::{self, Y};\n"),
        ("middle/c.rs", "use crate::low;\nuse crate::middle::d;\n"),
        (
            "low/d.rs",
            "//! See [`crate::high`].\nlet x = 1; // crate::high\nuse other_crate::high;\n",
        ),
        ("lib.rs", "pub use crate::high::X;\n"),
    ] {
        assert_eq!(check(file, text), "", "{file}");
    }
    assert!(check("new/mod.rs", "").contains("not in the table"));
}
