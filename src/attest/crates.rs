//! Reads the crates that `cargo auditable` lists in a binary into components.
//!
//! The list is the binary's section `.dep-v0` (zlib-compressed JSON), so it is always with the binary, and `cargo audit
//! bin` and other scanners read it too. <https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>

use auditable_info::{Error, audit_info_from_slice};
use auditable_serde::{DependencyKind, Source, VersionInfo};

use super::component::{Component, Kind, component_id, purl};
use super::license::License;
use crate::layout::tree::{NodeKind, Tree};

/// Directories of programs that belong neither to dpkg nor to Python.
const DIRECTORIES: [&str; 2] = ["usr/local/bin", "usr/local/sbin"];

/// Upper limit of a list; thousands of crates are shorter.
const MAX_JSON: usize = 4 << 20;

/// The crates of every native program in /usr/local, and the programs without a list.
pub fn components(tree: &Tree) -> (Vec<Component>, Vec<String>) {
    let (mut components, mut gaps) = (Vec::new(), Vec::new());
    for directory in DIRECTORIES {
        for (name, node) in tree.children(directory) {
            let NodeKind::File(file) = &node.kind else { continue };
            if !file.head.starts_with(b"\x7fELF") {
                continue;
            }
            let path = format!("{directory}/{name}");
            let Some(content) = &file.content else {
                gaps.push(format!("/{path}: too large to look for its crates"));
                continue;
            };
            match audit_info_from_slice(content, MAX_JSON) {
                Ok(info) => {
                    let first = components.len();
                    components.extend(of_binary(&path, &info, first));
                }
                Err(Error::NoAuditData) => {
                    gaps.push(format!(
                        "/{path}: has no list of its crates (it was not built with `cargo auditable`)"
                    ));
                }
                Err(e) => gaps.push(format!("/{path}: its list of crates cannot be read: {e}")),
            }
        }
    }
    (components, gaps)
}

/// The crates of the program: everything but dependencies of build scripts. Includes procedural macros, and features
/// that other workspace members request: one too many is better than one missing.
fn of_binary(path: &str, info: &VersionInfo, first: usize) -> Vec<Component> {
    let linked: Vec<usize> = (0..info.packages.len())
        .filter(|at| info.packages[*at].kind == DependencyKind::Runtime)
        .collect();
    linked
        .iter()
        .map(|at| {
            let package = &info.packages[*at];
            let version = package.version.to_string();
            // Crates built from a directory are unpublished: a crates.io purl would name another crate.
            let ecosystem = match package.source {
                Source::Local => "generic",
                _ => "cargo",
            };
            let purl = purl(ecosystem, None, &package.name, &version, &[]);
            let mut depends_on: Vec<usize> = package
                .dependencies
                .iter()
                .filter_map(|dependency| linked.binary_search(dependency).ok())
                .map(|position| first + position)
                .collect();
            depends_on.sort_unstable();
            depends_on.dedup();
            Component {
                id: component_id(Kind::Crate, &package.name, &[&purl, path]),
                kind: if package.root { Kind::Program } else { Kind::Crate },
                name: package.name.clone(),
                version,
                purl,
                license_from: path.to_string(),
                license: License::default(),
                supplier: None,
                homepage: None,
                source: None,
                download: None,
                location: path.to_string(),
                partial: false,
                patches: Vec::new(),
                depends_on,
            }
        })
        .collect()
}
