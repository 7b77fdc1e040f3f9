//! Reads the distributions on the interpreters' search paths into components.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use pep508_rs::{MarkerEnvironment, PackageName, Requirement, VerbatimUrl};
use serde::Deserialize;

use super::component::{Change, Component, Kind, Party, component_id, purl};
use super::license::{self, License};
use crate::image::Contents;
use crate::image::applied::{self, Applied};
use crate::image::packages::dpkg::Package;
use crate::image::packages::python::{self, Distribution, SitePath};
use crate::layout::tree::Tree;
use crate::oci::Platform;
use crate::plan::patches::Head;

/// One component per metadata directory, and the unreadable ones.
pub fn components(platform: Platform, image: &Contents, packages: &[Package]) -> (Vec<Component>, Vec<String>) {
    let env = image.config.config().as_ref().and_then(|c| c.env().as_ref());
    let pythonpath = env.and_then(|env| env.iter().find_map(|e| e.strip_prefix("PYTHONPATH=")));
    let gnu = platform.architecture().gnu_name();
    let (mut components, mut gaps) = (Vec::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    for interpreter in python::interpreters(&image.tree) {
        let path = SitePath::read(&image.tree, &interpreter, pythonpath);
        gaps.extend(path.problems.iter().map(|(path, what)| format!("/{path}: {what}")));
        let environment = python::marker_environment(&interpreter, packages, gnu);
        // Interpreters share directories; each distribution is listed once.
        let found: Vec<&Distribution> = path
            .distributions
            .iter()
            .filter(|d| seen.insert(d.metadata.clone()))
            .collect();
        let first = components.len();
        let mut by_name = HashMap::new();
        for (at, distribution) in found.iter().enumerate() {
            by_name.entry(distribution.name.as_str()).or_insert(first + at);
        }
        for (at, distribution) in found.iter().enumerate() {
            let mut component = component(&image.tree, distribution);
            match patches(&image.tree, &distribution.metadata) {
                Ok(patches) => component.patches = patches,
                Err(what) => drop(gaps.insert(format!("/{}: patches: {what}", distribution.metadata))),
            }
            if let Some(environment) = &environment {
                let required = required(distribution, environment);
                let installed = required.iter().filter_map(|n| by_name.get(n.as_str()));
                component.depends_on = installed.copied().filter(|other| *other != first + at).collect();
            }
            components.push(component);
        }
    }
    (components, gaps.into_iter().collect())
}

/// Its requirements on this platform without extras, sorted by name.
fn required(distribution: &Distribution, environment: &MarkerEnvironment) -> BTreeSet<String> {
    distribution
        .requires
        .iter()
        .filter_map(|text| Requirement::<VerbatimUrl>::from_str(text).ok())
        .filter(|requirement| requirement.marker.evaluate(environment, &[]))
        .map(|requirement: Requirement<VerbatimUrl>| PackageName::to_string(&requirement.name))
        .collect()
}

fn component(tree: &Tree, distribution: &Distribution) -> Component {
    let download = direct_url(tree, &distribution.metadata);
    let qualifiers: Vec<(&str, &str)> = download.iter().map(|url| ("vcs_url", url.as_str())).collect();
    let purl = purl("pypi", None, &distribution.name, &distribution.version, &qualifiers);
    Component {
        id: component_id(Kind::Python, &distribution.name, &[&purl, &distribution.metadata]),
        kind: Kind::Python,
        name: distribution.name.clone(),
        version: distribution.version.clone(),
        purl,
        license_from: format!("{}/METADATA", distribution.metadata),
        license: license_of(distribution),
        supplier: distribution.author.as_deref().map(Party::parse),
        homepage: distribution.homepage.clone(),
        source: None,
        download,
        location: distribution.metadata.clone(),
        partial: false,
        patches: Vec::new(),
        depends_on: Vec::new(),
    }
}

/// The build's patches of a distribution, from the record in the image.
fn patches(tree: &Tree, metadata: &str) -> Result<Vec<Change>, String> {
    let Some(record) = Applied::read(tree, metadata)? else {
        return Ok(Vec::new());
    };
    let changes = record.patches.into_iter().map(|patch| {
        let unreadable = || format!("{} cannot be read", patch.name);
        let (text, sha256) = applied::text(tree, metadata, &patch.name).ok_or_else(unreadable)?;
        let (head, _) = Head::parse(text.as_bytes()).map_err(|error| format!("{}: {error}", patch.name))?;
        Ok(Change {
            summary: head.summary().to_string(),
            description: head.description,
            origin: head.origin,
            bug: head.bug,
            name: patch.name,
            sha256,
            text,
        })
    });
    changes.collect()
}

/// The licence from the most specific of three metadata fields.
fn license_of(distribution: &Distribution) -> License {
    let stated = distribution
        .license_expression
        .as_deref()
        .or(distribution.license.as_deref());
    let owner = format!("python-{}", distribution.name);
    let stated = stated.map(|text| License::parse(&owner, text));
    let classified = license::of_classifiers(&owner, &distribution.license_classifiers);
    match (stated, classified) {
        (Some(stated), Some(classified)) if !stated.is_listed() && classified.is_listed() => classified,
        (stated, classified) => stated.or(classified).unwrap_or_default(),
    }
}

/// PEP 610 records the commit of a distribution installed from a repository.
#[derive(Deserialize)]
struct DirectUrl {
    url: String,
    vcs_info: VcsInfo,
}

#[derive(Deserialize)]
struct VcsInfo {
    vcs: String,
    commit_id: String,
}

/// `git+https://host/repository@commit`: SPDX's download location, and the purl's `vcs_url`.
fn direct_url(tree: &Tree, metadata: &str) -> Option<String> {
    let bytes = tree.content(&format!("{metadata}/direct_url.json"))?;
    let direct: DirectUrl = serde_json::from_slice(bytes).ok()?;
    let url = url::Url::parse(&direct.url).ok()?;
    // The URL may have contained a password, and a local path is useless to others.
    let public =
        matches!(url.scheme(), "http" | "https" | "git") && url.username().is_empty() && url.password().is_none();
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    (public && plain(&direct.vcs_info.vcs) && plain(&direct.vcs_info.commit_id))
        .then(|| format!("{}+{url}@{}", direct.vcs_info.vcs, direct.vcs_info.commit_id))
}
