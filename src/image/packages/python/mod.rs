//! The path that Debian's interpreter searches, and the distributions on it.

mod distribution;

use std::collections::BTreeSet;
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};

use super::dpkg::Package;
use crate::layout::tree::{NodeKind, Tree};

pub use distribution::{Distribution, RecordEntry, Script};

/// Far more than site directories have; beyond it metadata is not read.
const MAX_DISTRIBUTIONS: usize = 10_000;

/// What an interpreter finds.
#[derive(Clone, Debug, Default)]
pub struct SitePath {
    /// The directories of `sys.path` that exist, resolved, in order.
    pub entries: Vec<String>,
    /// In the order of the path they were found on.
    pub distributions: Vec<Distribution>,
    /// `.pth` files with lines that run code: path, and the lines.
    pub code: Vec<(String, Vec<String>)>,
    /// Metadata that cannot be read: path, and why.
    pub problems: Vec<(String, String)>,
}

/// What importing a name would find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// The file of a module, or the `__init__` of a package.
    File(String),
    /// Directories without `__init__`, merged (PEP 420).
    Namespace(Vec<String>),
}

impl SitePath {
    /// `python` is `MAJOR.MINOR`, `pythonpath` the image's PYTHONPATH.
    pub fn read(tree: &Tree, python: &str, pythonpath: Option<&str>) -> Self {
        let mut path = Self::default();
        for entry in pythonpath.unwrap_or_default().split(':').filter(|e| !e.is_empty()) {
            path.add(tree, entry);
        }
        path.add(tree, &format!("usr/lib/python{python}"));
        path.add(tree, &format!("usr/lib/python{python}/lib-dynload"));
        // Debian's site.py; the last is deprecated there, and searched.
        for site in [
            format!("usr/local/lib/python{python}/dist-packages"),
            "usr/lib/python3/dist-packages".to_string(),
            format!("usr/lib/python{python}/dist-packages"),
        ] {
            if let Some(site) = path.add(tree, &site) {
                path.follow_pth(tree, &site);
            }
        }
        for entry in path.entries.clone() {
            path.find_distributions(tree, &entry);
        }
        path
    }

    fn add(&mut self, tree: &Tree, entry: &str) -> Option<String> {
        let (resolved, node) = tree.resolve(entry).ok()?;
        if !matches!(node.kind, NodeKind::Directory) || self.entries.contains(&resolved) {
            return None;
        }
        self.entries.push(resolved.clone());
        Some(resolved)
    }

    /// `.pth` files in name order: lines that begin with `import` are executed, others are directories (site.py).
    fn follow_pth(&mut self, tree: &Tree, site: &str) {
        let names: Vec<&str> = tree
            .children(site)
            .map(|(name, _)| name)
            .filter(|n| n.ends_with(".pth") && !n.starts_with('.'))
            .collect();
        for name in names {
            let file = format!("{site}/{name}");
            let Some(text) = text(tree, &file) else {
                self.problems.push((file, "cannot be read".to_string()));
                continue;
            };
            let mut code = Vec::new();
            for line in text
                .lines()
                .map(str::trim_end)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                if line.starts_with("import ") || line.starts_with("import\t") {
                    code.push(line.to_string());
                } else if line.starts_with('/') {
                    self.add(tree, line);
                } else {
                    self.add(tree, &format!("{site}/{line}"));
                }
            }
            if !code.is_empty() {
                self.code.push((file, code));
            }
        }
    }

    fn find_distributions(&mut self, tree: &Tree, entry: &str) {
        for (name, node) in tree.children(entry) {
            let path = format!("{entry}/{name}");
            let directory = matches!(node.kind, NodeKind::Directory);
            let metadata = if name.ends_with(".dist-info") && directory {
                format!("{path}/METADATA")
            } else if name.ends_with(".egg-info") && directory {
                format!("{path}/PKG-INFO")
            } else if name.ends_with(".egg-info") {
                path.clone()
            } else {
                continue;
            };
            if self.distributions.len() == MAX_DISTRIBUTIONS {
                return self.problems.push((path, "too many distributions".to_string()));
            }
            match text(tree, &metadata) {
                None => self
                    .problems
                    .push((metadata, "missing, too large to be kept, or not UTF-8".to_string())),
                Some(headers) => match Distribution::read(tree, entry, &path, headers) {
                    Ok(found) => self.distributions.push(found),
                    Err(what) => self.problems.push((metadata, what)),
                },
            }
        }
    }

    /// The first on the path, which is the one that importlib.metadata returns.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.distributions.iter().find(|d| d.name == name)
    }

    /// What `import name` would load; `name` may be dotted.
    pub fn find_module(&self, tree: &Tree, name: &str, suffixes: &[String]) -> Option<Module> {
        let mut search = self.entries.clone();
        let mut found = None;
        for part in name.split('.') {
            let module = find_in(tree, &search, part, suffixes)?;
            search = match &module {
                Module::File(file) => match file.rsplit_once('/') {
                    Some((dir, init)) if init.starts_with("__init__.") => vec![dir.to_string()],
                    // A module has nothing below it; a further part finds nothing.
                    _ => Vec::new(),
                },
                Module::Namespace(dirs) => dirs.clone(),
            };
            found = Some(module);
        }
        found
    }
}

fn find_in(tree: &Tree, search: &[String], name: &str, suffixes: &[String]) -> Option<Module> {
    let mut namespace = Vec::new();
    let is_file = |path: &str| {
        tree.resolve(path)
            .is_ok_and(|(_, n)| matches!(n.kind, NodeKind::File(_)))
    };
    for dir in search {
        let base = format!("{dir}/{name}");
        let is_package = tree
            .resolve(&base)
            .is_ok_and(|(_, n)| matches!(n.kind, NodeKind::Directory));
        // The order of importlib: packages, extension modules, sources.
        let candidates = suffixes.iter().map(String::as_str).chain([".py"]);
        let package = candidates
            .clone()
            .map(|s| format!("{base}/__init__{s}"))
            .filter(|_| is_package);
        let plain = candidates.map(|s| format!("{base}{s}"));
        if let Some(file) = package.chain(plain).find(|p| is_file(p)) {
            return Some(Module::File(file));
        }
        if is_package {
            namespace.push(base);
        }
    }
    (!namespace.is_empty()).then_some(Module::Namespace(namespace))
}

/// Which interpreters (`3.11`) have a library directory in the tree.
pub fn interpreters(tree: &Tree) -> BTreeSet<String> {
    ["usr/lib", "usr/local/lib"]
        .iter()
        .flat_map(|dir| tree.children(dir))
        .filter_map(|(name, _)| name.strip_prefix("python"))
        .filter(|version| version.starts_with("3."))
        .map(str::to_string)
        .collect()
}

/// The marker variables (PEP 508) of CPython `python` (`3.11`) on `gnu` (`x86_64`, `aarch64`). The packages may know its
/// full version.
pub fn marker_environment(python: &str, packages: &[Package], gnu: &str) -> Option<MarkerEnvironment> {
    let full = full_version(python, packages).unwrap_or_else(|| format!("{python}.0"));
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: gnu,
        platform_python_implementation: "CPython",
        // Those of the kernel it will run on; nothing on PyPI asks for them in earnest.
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: python,
        sys_platform: "linux",
    })
    .ok()
}

/// `3.11.2` of package python3.11 at `3.11.2-6+deb12u6`.
fn full_version(python: &str, packages: &[Package]) -> Option<String> {
    let installed = |name: String| packages.iter().find(|p| p.name == name && p.installed());
    let package = installed(format!("python{python}")).or_else(|| installed(format!("python{python}-minimal")))?;
    let upstream = package.version.split(['-', '+', '~']).next()?;
    Version::from_str(upstream).ok().map(|v| v.to_string())
}

/// The suffixes of extension modules that CPython `python` on `gnu` (`x86_64`, `aarch64`) loads.
pub fn extension_suffixes(python: &str, gnu: &str) -> Vec<String> {
    let tag = python.replace('.', "");
    vec![
        format!(".cpython-{tag}-{gnu}-linux-gnu.so"),
        ".abi3.so".to_string(),
        ".so".to_string(),
    ]
}

fn text<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    std::str::from_utf8(tree.content(path)?).ok()
}
