//! The `crate::` paths in the sources of a crate, for the tests of its architecture. Used by both crates of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a directory tree that end in `.rs`, in order.
pub fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The top-level modules that a text names after `crate::`, each with its line; of `crate::{…}`, each part of the outer list.
/// Comments are skipped.
pub fn imports(text: &str) -> Vec<(usize, String)> {
    let code = without_comments(text);
    let mut found = Vec::new();
    let mut add = |at: usize| found.push((code[..at].matches('\n').count() + 1, identifier(&code[at..])));
    for (start, path) in code.match_indices("crate::") {
        if code[..start].ends_with(is_word) {
            continue;
        }
        let mut at = start + path.len();
        if !code[at..].starts_with('{') {
            add(at);
            continue;
        }
        let mut depth = 0;
        while let Some(c) = code[at..].chars().next() {
            at += c.len_utf8();
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(c, '{' | ',') {
                at += code[at..].len() - code[at..].trim_start().len();
                // After the last comma of a list there is no name.
                if code[at..].starts_with(is_word) {
                    add(at);
                }
            }
        }
    }
    found
}

/// The text with empty lines and line ends in place of its comments.
fn without_comments(text: &str) -> String {
    let strip = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.split(" // ").next().unwrap_or_default().to_string(),
    };
    text.lines().map(|line| strip(line) + "\n").collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}
