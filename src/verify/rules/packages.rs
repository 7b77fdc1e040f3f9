//! Rules about the dpkg database: required, forbidden and partly installed packages.

use super::Rule;
use crate::image::packages::dpkg::{Package, STATUS};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const REQUIRED: Rule = Rule {
    id: "packages",
    title: "Every package in the contract is installed; all packages are complete and for this architecture",
    check: required,
};

pub const FORBIDDEN: Rule = Rule {
    id: "forbidden-packages",
    title: "No compiler, installer, daemon or development package is installed",
    check: forbidden,
};

fn database<'a>(context: &'a Context, evidence: &mut Evidence) -> &'a [Package] {
    match &context.dpkg {
        Ok(packages) => {
            evidence.checked(packages.len(), "packages");
            packages
        }
        Err(e) => {
            evidence.finding(format_args!("/{STATUS}"), None, "dpkg's database", e);
            &[]
        }
    }
}

fn required(context: &Context, evidence: &mut Evidence) {
    let packages = database(context, evidence);
    let layer = context.tree.get(STATUS).map(|n| n.layer);
    let architecture = context.platform.architecture().name();
    for name in &context.terms.packages.required {
        if context.dpkg.is_ok() && context.package(name).is_none() {
            evidence.finding(
                format_args!("/{STATUS}"),
                layer,
                format_args!("{name} installed"),
                "it is not",
            );
        }
    }
    for package in packages.iter().filter(|p| !p.removed()) {
        if !package.installed() && !package.partial() {
            evidence.finding(
                format_args!("/{STATUS}"),
                layer,
                format_args!("{}: install ok installed", package.name),
                &package.status,
            );
        }
        if package.architecture != architecture && package.architecture != "all" {
            evidence.finding(
                format_args!("/{STATUS}"),
                layer,
                format_args!("{}: architecture {architecture} or all", package.name),
                &package.architecture,
            );
        }
    }
}

fn forbidden(context: &Context, evidence: &mut Evidence) {
    let layer = context.tree.get(STATUS).map(|n| n.layer);
    for package in database(context, evidence)
        .iter()
        .filter(|p| !p.removed() && !p.partial())
    {
        if let Some(pattern) = context.terms.packages.forbidden.find(&package.name) {
            evidence.finding(
                format_args!("/{STATUS}"),
                layer,
                format_args!("no package {pattern}"),
                format_args!("{} {}", package.name, package.version),
            );
        }
    }
}
