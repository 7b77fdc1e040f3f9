//! Checks a file tree and an image configuration against the contract, and returns a verdict.
//!
//! All input comes from the layers; the image does not run, so a foreign platform is verified as fast as the native
//! one. `images/<name>.toml` states the contract ([`Contract`]); `build.toml` names the agent's user and the distro
//! ([`Expectation`]). Each file in `rules/` reports what it checked.

pub(crate) mod contract;
mod etc;
pub(crate) mod judge;
mod keep;
pub(crate) mod memory;
mod rules;
pub mod sudoers;
mod verdict;

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;

use crate::config::{Distro, Identity};
use crate::image::packages::built;
use crate::image::packages::dpkg::{self, DpkgError, Package};
use crate::image::packages::dpkg_files::PackageFiles;
use crate::image::packages::python::{SitePath, extension_suffixes};
use crate::image::{Contents, Image};
use crate::layout::tree::{Node, NodeKind, Tree};
use crate::oci::Platform;
use crate::plan::patches::Patch;

pub use contract::{Contract, ContractError};
pub use etc::{Accounts, parse_group, parse_gshadow, parse_passwd, parse_shadow};
pub use keep::{keeps, read_options};
pub use rules::rule_ids;
pub use verdict::{Checked, Finding, Passed, Refused, RuleReport, Verdict, Verified};

use contract::Terms;
use rules::RULES;
use sudoers::Policy;
use verdict::Evidence;

/// The intended properties of the image; they instantiate the contract.
#[derive(Clone, Copy)]
pub struct Expectation<'a> {
    pub identity: &'a Identity,
    pub distro: &'a Distro,
    /// The image's main Python distribution: `ovn-bgp-agent`.
    pub project: &'a str,
    /// The project ref of the source. If it is a version, that version must be installed.
    pub reference: Option<&'a str>,
    /// Labels with known values (build.toml).
    pub labels: &'a BTreeMap<String, String>,
    /// The lock in use (`name==version --hash=…` lines); installed versions must match it.
    pub lock: Option<&'a str>,
    /// The project's patches for that ref: the image must have exactly these. `None` if unknown.
    pub patches: Option<&'a [Patch]>,
}

impl Contract {
    /// Applies every rule; reads the image if it is not read yet. An error means that the image cannot be read, or that the
    /// contract cannot be applied (one of its statements does not parse for this identity); defects of the image are in the
    /// verdict.
    pub fn check(&self, image: &Image, expected: &Expectation) -> Result<Verdict, ContractError> {
        let platform = image.platform();
        let terms = self.terms(expected, platform)?;
        let context = Context::new(&terms, platform, image.contents()?, expected);
        let reports = RULES
            .iter()
            .map(|rule| {
                let mut evidence = Evidence::default();
                (rule.check)(&context, &mut evidence);
                evidence.report(rule)
            })
            .collect();
        Ok(Verdict::new(platform, image.digest().map(str::to_string), reports))
    }
}

/// The parsed input of the rules.
pub(crate) struct Context<'a> {
    pub terms: &'a Terms,
    pub platform: Platform,
    pub image: &'a Contents,
    pub tree: &'a Tree,
    pub expected: &'a Expectation<'a>,
    pub accounts: Accounts,
    pub dpkg: Result<Vec<Package>, DpkgError>,
    pub packaged: PackageFiles,
    /// SHA-256 by path; an error says what is wrong with the build's list.
    pub built: Result<BTreeMap<String, [u8; 32]>, String>,
    pub python: SitePath,
    pub sudoers: Policy,
}

impl<'a> Context<'a> {
    fn new(terms: &'a Terms, platform: Platform, image: &'a Contents, expected: &'a Expectation<'a>) -> Self {
        let tree = &image.tree;
        let dpkg = dpkg::packages(tree);
        Self {
            terms,
            platform,
            image,
            tree,
            expected,
            accounts: Accounts::read(tree),
            packaged: PackageFiles::read(tree, dpkg.as_deref().unwrap_or_default()),
            built: built::read(tree),
            dpkg,
            python: SitePath::read(tree, &expected.distro.python, env_of(&image.config, "PYTHONPATH")),
            sudoers: Policy::read(tree),
        }
    }

    /// The version of an installed dpkg package.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.dpkg
            .as_ref()
            .ok()?
            .iter()
            .find(|p| p.name == name && p.installed())
    }

    pub fn env(&self, name: &str) -> Option<&str> {
        env_of(&self.image.config, name)
    }

    /// Suffixes of the extension modules that the image's interpreter loads.
    pub fn extension_suffixes(&self) -> Vec<String> {
        extension_suffixes(&self.expected.distro.python, self.platform.architecture().gnu_name())
    }

    fn is_agents_group(&self, gid: u32) -> bool {
        let agent = self.expected.identity;
        gid == agent.gid || agent.groups.iter().any(|g| g.gid == gid)
    }

    /// Whether the agent's process has all of these permission bits (of `0o7`) on a node, as owner, group or other.
    pub fn agent_has(&self, node: &Node, bits: u32) -> bool {
        let shift = if node.uid == self.expected.identity.uid {
            6
        } else if self.is_agents_group(node.gid) {
            3
        } else {
            0
        };
        (node.mode >> shift) & bits == bits
    }

    /// Whether the agent can reach the resolved path `path`, through all parent directories.
    pub fn agent_reaches(&self, path: &str) -> bool {
        path.match_indices('/').all(|(end, _)| {
            self.tree
                .get(&path[..end])
                .is_none_or(|n| !matches!(n.kind, NodeKind::Directory) || self.agent_has(n, 0o1))
        })
    }
}

fn env_of<'a>(config: &'a ImageConfiguration, name: &str) -> Option<&'a str> {
    let env = config.config().as_ref()?.env().as_ref()?;
    env.iter()
        .filter_map(|e| e.split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, v)| v)
}
