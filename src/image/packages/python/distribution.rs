//! A metadata directory -> the distribution that it describes.
//!
//! Metadata is as the core metadata specification and PEP 376, 427 and 610 have it (`*.dist-info`), or setuptools' older
//! `*.egg-info`, which Debian's own Python packages still use.

use std::collections::BTreeSet;
use std::str::FromStr;

use pep508_rs::PackageName;
use serde::Serialize;

use super::text;
use crate::layout::tree::Tree;

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

impl Distribution {
    pub(super) fn read(tree: &Tree, site: &str, metadata: &str, headers: &str) -> Result<Self, String> {
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
