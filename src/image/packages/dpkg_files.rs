//! dpkg's records of files -> the packages' files by path, each with its MD5.
//!
//! `info/PACKAGE.list` names the paths of a package, `info/PACKAGE.md5sums` the hashes of its files, `Conffiles` in the status
//! those of its configuration files. A diversion (dpkg-divert(1)) moves a path of other packages. Lists name `/bin/x` where the
//! image has `/bin -> usr/bin`: paths here are those of the tree.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::dpkg::Package;
use crate::layout::tree::Tree;

pub const INFO: &str = "var/lib/dpkg/info/";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";

/// Whether the file at `path` is one that [`PackageFiles::read`] or [`alternatives`](super::alternatives) reads.
pub fn is_record(path: &str) -> bool {
    path == DIVERSIONS
        || path.starts_with(super::alternatives::DIRECTORY)
        || path
            .strip_prefix(INFO)
            .is_some_and(|name| name.ends_with(".list") || name.ends_with(".md5sums"))
}

/// What dpkg records of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    pub package: Arc<str>,
    /// `None` for directories and links, of which dpkg has no hash.
    pub md5: Option<[u8; 16]>,
    /// The layer in which dpkg unpacked the package: that of its list.
    pub layer: usize,
}

/// The files of all packages.
#[derive(Clone, Debug, Default)]
pub struct PackageFiles {
    /// By path in the tree.
    pub files: BTreeMap<String, PackageFile>,
    /// Packages without a readable list.
    pub unlisted: Vec<String>,
}

impl PackageFiles {
    pub fn read(tree: &Tree, packages: &[Package]) -> Self {
        let diversions = Diversions::read(tree);
        let mut paths = Paths::new(tree);
        let mut found = Self::default();
        for package in packages.iter().filter(|p| p.has_files()) {
            let Some((list, layer)) = record(tree, package, "list") else {
                found.unlisted.push(package.name.clone());
                continue;
            };
            let name: Arc<str> = package.name.as_str().into();
            let sums: HashMap<&str, [u8; 16]> = record(tree, package, "md5sums")
                .map_or("", |(text, _)| text)
                .lines()
                .filter_map(|line| Some((line.get(34..)?, parse_md5(line.get(..32)?)?)))
                .collect();
            let conffiles: HashMap<&str, [u8; 16]> = package
                .conffiles
                .iter()
                .filter_map(|(path, md5)| Some((path.as_str(), parse_md5(md5)?)))
                .collect();
            // Lists lack configuration files that a later version of the package no longer has; dpkg leaves those in place.
            let obsolete = package.conffiles.iter().map(|(path, _)| path.as_str());
            let obsolete = obsolete.filter(|path| tree.get(path).is_some());
            for listed in list.lines().filter(|line| line.starts_with('/')).chain(obsolete) {
                let md5 = conffiles.get(listed).or_else(|| sums.get(&listed[1..])).copied();
                let path = paths.resolve(diversions.place(listed, &package.name));
                let file = found.files.entry(path).or_insert_with(|| PackageFile {
                    package: Arc::clone(&name),
                    md5,
                    layer,
                });
                // Packages share directories; the file is of the package that has its hash.
                if file.md5.is_none() && md5.is_some() {
                    (file.package, file.md5, file.layer) = (Arc::clone(&name), md5, layer);
                }
            }
        }
        found
    }
}

/// The text of `info/PACKAGE.KIND`, or `info/PACKAGE:ARCHITECTURE.KIND` of a package that several architectures may have; and
/// its layer.
fn record<'t>(tree: &'t Tree, package: &Package, kind: &str) -> Option<(&'t str, usize)> {
    let (name, architecture) = (&package.name, &package.architecture);
    let names = [
        format!("{INFO}{name}:{architecture}.{kind}"),
        format!("{INFO}{name}.{kind}"),
    ];
    let path = names.iter().find(|path| tree.get(path).is_some())?;
    let text = std::str::from_utf8(tree.content(path)?).ok()?;
    Some((text, tree.get(path)?.layer))
}

pub fn parse_md5(hexadecimal: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(hexadecimal, &mut md5).ok()?;
    Some(md5)
}

/// From a path to the path that other packages' files get, and the package that does not move.
#[derive(Default)]
struct Diversions<'t>(HashMap<&'t str, (&'t str, &'t str)>);

impl<'t> Diversions<'t> {
    /// Three lines each: from, to, and the package, `:` for the administrator.
    fn read(tree: &'t Tree) -> Self {
        let text = tree
            .content(DIVERSIONS)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        let lines: Vec<&str> = text.unwrap_or_default().lines().collect();
        let triples = lines.chunks_exact(3).map(|lines| (lines[0], (lines[1], lines[2])));
        Self(triples.collect())
    }

    fn place<'p>(&self, path: &'p str, package: &str) -> &'p str
    where
        't: 'p,
    {
        match self.0.get(path) {
            Some((to, diverting)) if *diverting != package => to,
            _ => path,
        }
    }
}

/// Resolves the directories of paths, each once.
pub struct Paths<'t> {
    tree: &'t Tree,
    directories: HashMap<String, String>,
}

impl<'t> Paths<'t> {
    pub fn new(tree: &'t Tree) -> Self {
        Self {
            tree,
            directories: HashMap::new(),
        }
    }

    /// The path in the tree of an absolute path: links above the last component are followed as far as they exist.
    pub fn resolve(&mut self, path: &str) -> String {
        let path = path.trim_matches('/');
        match path.rsplit_once('/') {
            _ if path == "." => String::new(),
            None => path.to_string(),
            Some((directory, name)) => format!("{}/{name}", self.directory(directory)),
        }
    }

    fn directory(&mut self, directory: &str) -> String {
        if let Some(known) = self.directories.get(directory) {
            return known.clone();
        }
        let resolved = match self.tree.resolve(directory) {
            Ok((resolved, _)) => resolved,
            Err(_) => self.resolve(directory),
        };
        self.directories.insert(directory.to_string(), resolved.clone());
        resolved
    }
}
