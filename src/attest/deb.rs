//! Reads dpkg's database into components.

use std::collections::HashMap;

use super::component::{Component, Kind, Party, component_id, purl};
use super::copyright;
use super::system::System;
use crate::image::packages::dpkg::{Package, STATUS, STATUS_DIR};
use crate::layout::tree::Tree;

/// One component per package with more than configuration files in the image.
pub fn components(tree: &Tree, packages: &[Package], system: &System) -> Vec<Component> {
    let present: Vec<&Package> = packages.iter().filter(|p| !p.removed()).collect();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (at, package) in present.iter().enumerate() {
        for name in &package.provides {
            by_name.entry(name).or_insert(at);
        }
    }
    // A package takes precedence over packages that provide its name.
    by_name.extend(present.iter().enumerate().map(|(at, p)| (p.name.as_str(), at)));
    present
        .iter()
        .enumerate()
        .map(|(at, package)| {
            let mut depends_on: Vec<usize> = package
                .depends
                .iter()
                .filter_map(|choices| choices.iter().find_map(|name| by_name.get(name.as_str())))
                .copied()
                .filter(|other| *other != at)
                .collect();
            depends_on.sort_unstable();
            depends_on.dedup();
            component(tree, package, system, depends_on)
        })
        .collect()
}

fn component(tree: &Tree, package: &Package, system: &System, depends_on: Vec<usize>) -> Component {
    let source = package.source.clone().unwrap_or_else(|| package.name.clone());
    let source_version = package
        .source_version
        .clone()
        .unwrap_or_else(|| package.version.clone());
    // Scanners look up advisories by source package.
    let upstream = match (&package.source, &package.source_version) {
        (None, None) => None,
        (_, None) => Some(source.clone()),
        (_, Some(version)) => Some(format!("{source}@{version}")),
    };
    let distro = system.distro();
    let mut qualifiers = vec![("arch", package.architecture.as_str()), ("distro", distro.as_str())];
    qualifiers.extend(upstream.as_deref().map(|u| ("upstream", u)));
    let location = match package.partial() {
        true => format!("{STATUS_DIR}/{}", package.name),
        false => STATUS.to_string(),
    };
    let purl = purl("deb", Some(&system.id), &package.name, &package.version, &qualifiers);
    Component {
        id: component_id(Kind::Deb, &package.name, &[&purl, &location]),
        kind: Kind::Deb,
        name: package.name.clone(),
        version: package.version.clone(),
        license_from: copyright::path(&package.name),
        license: copyright::license(tree, &package.name),
        supplier: package.maintainer.as_deref().map(Party::parse),
        homepage: package.homepage.clone(),
        source: Some((source, source_version)),
        download: None,
        partial: package.partial(),
        patches: Vec::new(),
        purl,
        location,
        depends_on,
    }
}
