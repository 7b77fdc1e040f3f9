//! The rules, one file per subject, and the order of their reports.

mod accounts;
mod apt_sources;
mod bytecode;
mod certificates;
mod commands;
mod config;
mod configuration_files;
mod elf;
mod files;
mod host_traces;
mod leftovers;
mod loader_cache;
mod origins;
mod packages;
mod patches;
mod permissions;
mod python;
mod requirements;
mod secrets;
mod size;
mod sudoers;
mod symlinks;

use super::Context;
use super::verdict::Evidence;

/// A rule: its ID and title in reports, and its check.
pub(super) struct Rule {
    pub id: &'static str,
    pub title: &'static str,
    pub check: fn(&Context, &mut Evidence),
}

pub(super) const RULES: &[Rule] = &[
    accounts::USERS,
    accounts::GROUPS,
    accounts::PASSWORDS,
    sudoers::FILES,
    sudoers::GRANTS,
    sudoers::DEFAULTS,
    configuration_files::CONFIGURATION_FILES,
    python::INTERPRETER,
    requirements::REQUIREMENTS,
    python::DISTRIBUTIONS,
    python::LOCK,
    python::MODULES,
    python::SCRIPTS,
    bytecode::BYTECODE,
    patches::PATCHES,
    commands::REQUIRED,
    commands::FORBIDDEN,
    packages::REQUIRED,
    packages::FORBIDDEN,
    files::REQUIRED,
    files::FORBIDDEN,
    files::READ_ONLY_ROOT,
    elf::ELF,
    origins::ORIGINS,
    origins::PACKAGE_FILES,
    origins::BUILT_FILES,
    loader_cache::LOADER_CACHE,
    permissions::PRIVILEGED,
    permissions::WORLD_WRITABLE,
    permissions::AGENT_WRITABLE,
    permissions::OWNERSHIP,
    permissions::DEVICES,
    leftovers::LEFTOVERS,
    secrets::SECRETS,
    host_traces::HOST_TRACES,
    symlinks::SYMLINKS,
    config::PROCESS,
    config::ENVIRONMENT,
    config::LABELS,
    config::PLATFORM,
    config::HISTORY,
    size::SIZE,
];

/// Every rule ID, in report order.
pub fn rule_ids() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|r| r.id)
}
