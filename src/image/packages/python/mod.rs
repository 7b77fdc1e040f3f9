//! The path that Debian's interpreter searches, and the distributions on it.
//!
//! Metadata is as the core metadata specification and PEP 376, 427 and 610 have it (`*.dist-info`), or setuptools' older
//! `*.egg-info`, which Debian's own Python packages still use.

use std::collections::BTreeSet;
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, PackageName};
use serde::Serialize;

use super::dpkg::Package;
use crate::layout::tree::{NodeKind, Tree};

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// Normalised (PEP 503).
    pub name: String,
    pub version: String,
    /// The directory of the search path that it is in.
    pub site: String,
    /// Its `.dist-info` or `.egg-info`.
    pub metadata: String,
    #[serde(skip)]
    pub requires: Vec<String>,
    #[serde(skip)]
    pub requires_python: Option<String>,
    /// `License-Expression` (PEP 639).
    pub license_expression: Option<String>,
    /// `License`, where it is short enough to be a name.
    pub license: Option<String>,
    /// The classifiers that begin with `License ::`.
    #[serde(skip)]
    pub license_classifiers: Vec<String>,
    /// `Author-email` or `Maintainer-email`, or the name where there is no address.
    pub author: Option<String>,
    /// `Home-page`, or the project URL that stands for it, or that of the source.
    pub homepage: Option<String>,
    #[serde(skip)]
    pub scripts: Vec<Script>,
    /// `None` where there is no RECORD.
    #[serde(skip)]
    pub record: Option<Vec<RecordEntry>>,
    #[serde(skip)]
    pub top_level: Vec<String>,
}

/// A console script's entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub name: String,
    /// `package.module`.
    pub module: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// From the root of the image, `..` resolved.
    pub path: String,
    pub size: Option<u64>,
    pub sha256: Option<[u8; 32]>,
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

impl Distribution {
    fn read(tree: &Tree, site: &str, metadata: &str, headers: &str) -> Result<Self, String> {
        let headers = parse_headers(headers);
        let get = |name: &str| {
            headers
                .iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
        };
        let known = |v: &&str| !v.is_empty() && *v != "UNKNOWN";
        let all = |name: &'static str| {
            headers
                .iter()
                .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
        };
        let written = get("Name").ok_or("no Name")?;
        let name = PackageName::from_str(written).map_err(|_| format!("{written:?} is no name"))?;
        let file = |name: &str| text(tree, &format!("{metadata}/{name}"));
        Ok(Self {
            name: name.to_string(),
            version: get("Version").filter(known).ok_or("no Version")?.to_string(),
            site: site.to_string(),
            metadata: metadata.to_string(),
            requires: all("Requires-Dist").map(str::to_string).collect(),
            requires_python: get("Requires-Python").map(str::to_string),
            license_expression: get("License-Expression").filter(known).map(str::to_string),
            license: get("License")
                .filter(|l| l.len() <= 64)
                .filter(known)
                .map(str::to_string),
            license_classifiers: all("Classifier")
                .filter(|c| c.starts_with("License ::"))
                .map(str::to_string)
                .collect(),
            author: author(&get),
            homepage: get("Home-page")
                .filter(known)
                .or_else(|| {
                    ["homepage", "source", "repository", "sourcecode"]
                        .iter()
                        .find_map(|label| project_url(all("Project-URL"), label))
                })
                .map(str::to_string),
            scripts: file("entry_points.txt").map(parse_console_scripts).unwrap_or_default(),
            record: file("RECORD").map(|text| parse_record(site, text)),
            top_level: file("top_level.txt")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_string)
                .collect(),
        })
    }

    /// Top-level modules and packages it installs, without namespace packages, which other distributions share.
    pub fn modules(&self) -> BTreeSet<&str> {
        let Some(record) = &self.record else {
            return self.top_level.iter().map(String::as_str).collect();
        };
        let prefix = format!("{}/", self.site);
        record
            .iter()
            .filter_map(|entry| entry.path.strip_prefix(&prefix))
            .filter_map(|path| match path.split_once('/') {
                Some((package, rest)) if rest.starts_with("__init__.") && !rest.contains('/') => Some(package),
                None => path
                    .strip_suffix(".py")
                    .or_else(|| path.ends_with(".so").then(|| path.split('.').next())?),
                _ => None,
            })
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
            .collect()
    }
}

/// `Name <address>` where both are known, in one field or in two.
fn author<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    for role in ["Author", "Maintainer"] {
        let known = |name: &str| get(name).filter(|v| !v.is_empty() && *v != "UNKNOWN");
        match (known(role), known(&format!("{role}-email"))) {
            (Some(name), Some(address)) if !address.contains('<') => return Some(format!("{name} <{address}>")),
            (_, Some(address)) => return Some(address.to_string()),
            (Some(name), None) => return Some(name.to_string()),
            (None, None) => {}
        }
    }
    None
}

/// The URL of `Project-URL: Label, URL` with this label, compared as the specification of well-known labels says.
fn project_url<'a>(mut urls: impl Iterator<Item = &'a str>, label: &str) -> Option<&'a str> {
    urls.find_map(|value| {
        let (written, url) = value.split_once(',')?;
        let normal: String = written.chars().filter(char::is_ascii_alphanumeric).collect();
        normal.eq_ignore_ascii_case(label).then(|| url.trim())
    })
}

/// The header fields of METADATA or PKG-INFO: `Name: value` up to the first empty line, continued by indented lines.
fn parse_headers(text: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().take_while(|l| !l.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_string(), value.trim().to_string()));
        }
    }
    fields
}

/// `[console_scripts]` of an entry_points.txt: `name = module:function [extras]`.
fn parse_console_scripts(text: &str) -> Vec<Script> {
    let mut section = "";
    let mut scripts = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with(['#', ';']))
    {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim();
        } else if section == "console_scripts"
            && let Some((name, target)) = line.split_once('=')
        {
            let module = target.trim().split([':', ' ', '[']).next().unwrap_or_default();
            scripts.push(Script {
                name: name.trim().to_string(),
                module: module.to_string(),
            });
        }
    }
    scripts
}

/// RECORD is CSV: path, hash, size; a path with a comma is quoted.
fn parse_record(site: &str, text: &str) -> Vec<RecordEntry> {
    text.lines()
        .filter(|l| !l.is_empty())
        .map(|line| {
            let mut fields = line.rsplitn(3, ',');
            let size = fields.next().and_then(|s| s.trim().parse().ok());
            let digest = fields.next().unwrap_or_default();
            let written = fields.next().unwrap_or_default();
            let path = match written.strip_prefix('"').and_then(|p| p.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => written.to_string(),
            };
            RecordEntry {
                path: join(site, &path),
                size,
                sha256: digest.strip_prefix("sha256=").and_then(decode_digest),
            }
        })
        .collect()
}

/// URL-safe base64 without padding (PEP 427).
fn decode_digest(text: &str) -> Option<[u8; 32]> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()?
        .try_into()
        .ok()
}

fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = if path.starts_with('/') {
        Vec::new()
    } else {
        dir.split('/').collect()
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_end_at_the_description() {
        let fields = parse_headers("Name: a\nRequires-Dist: b>=1\nLicense: x\n  y\n\nName: z\n");
        assert_eq!(fields.len(), 3);
        assert_eq!(fields[2].1, "x\ny");
    }

    #[test]
    fn authors_and_addresses_are_joined() {
        let of = |text: &str| {
            let headers = parse_headers(text);
            author(&|name| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()))
        };
        assert_eq!(
            of("Author: A B\nAuthor-email: a@b.org\n").as_deref(),
            Some("A B <a@b.org>")
        );
        assert_eq!(
            of("Author: A\nAuthor-email: O <o@p.org>\n").as_deref(),
            Some("O <o@p.org>")
        );
        assert_eq!(of("Author: UNKNOWN\nMaintainer: M\n").as_deref(), Some("M"));
        assert_eq!(of("Name: x\n"), None);
        let urls = ["Bug Tracker, https://b", "Home-Page, https://h"];
        assert_eq!(project_url(urls.into_iter(), "homepage"), Some("https://h"));
    }

    #[test]
    fn console_scripts_only() {
        let scripts =
            parse_console_scripts("[gui_scripts]\nx = y:z\n[console_scripts]\nprivsep-helper = a.b:main [c]\n");
        assert_eq!(scripts.len(), 1);
        assert_eq!(
            (scripts[0].name.as_str(), scripts[0].module.as_str()),
            ("privsep-helper", "a.b")
        );
    }

    #[test]
    fn record_paths_are_resolved() {
        let digest = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        let text = format!("a/__init__.py,sha256={digest},0\n../../../bin/a,,\n\"odd, name.py\",,12\n");
        let record = parse_record("usr/local/lib/python3.12/dist-packages", &text);
        assert_eq!(record[0].path, "usr/local/lib/python3.12/dist-packages/a/__init__.py");
        assert_eq!(record[0].sha256.unwrap()[0], 0xe3);
        assert_eq!(record[1].path, "usr/local/bin/a");
        assert_eq!(record[2].path, "usr/local/lib/python3.12/dist-packages/odd, name.py");
        assert_eq!(record[2].size, Some(12));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-z:,=\\[\\]\"./ \n]{0,120}") {
            parse_headers(&text);
            parse_console_scripts(&text);
            parse_record("usr/lib", &text);
        }
    }
}
