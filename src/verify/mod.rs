//! A file tree and an image configuration into a verdict: does the image keep its contract?
//!
//! Everything is read from the layers; nothing of the image runs, so a foreign platform is judged as fast as the
//! machine's own. `images/<name>.toml` states the contract ([`Contract`]), `build.toml` says who the agent is and which
//! distro this is ([`Expectation`]); each rule is a file of `rules/` and reports what it looked at.

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
use crate::image::packages::dpkg::{self, DpkgError, Package};
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

/// What this build meant to make; the contract is instantiated with it.
#[derive(Clone, Copy)]
pub struct Expectation<'a> {
    pub identity: &'a Identity,
    pub distro: &'a Distro,
    /// The Python distribution that the image is about: `ovn-bgp-agent`.
    pub project: &'a str,
    /// The project ref it was built from. One that is a version has to be the installed version.
    pub reference: Option<&'a str>,
    /// Labels whose values are known beforehand (build.toml).
    pub labels: &'a BTreeMap<String, String>,
    /// The lock in use (`name==version --hash=…` lines): installed versions have to be its pins.
    pub lock: Option<&'a str>,
    /// The project's patches for that ref: the image has to have them, and no others. `None` if they are not known.
    pub patches: Option<&'a [Patch]>,
}

impl Contract {
    /// Applies every rule; reads the image if it is not read yet. An error means that the image cannot be read, or that the contract itself cannot be applied (a statement in it does not
    /// parse for this identity), not that the image is bad: that is the verdict's to say.
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

/// What every rule looks at, parsed once.
pub(crate) struct Context<'a> {
    pub terms: &'a Terms,
    pub platform: Platform,
    pub image: &'a Contents,
    pub tree: &'a Tree,
    pub expected: &'a Expectation<'a>,
    pub accounts: Accounts,
    pub dpkg: Result<Vec<Package>, DpkgError>,
    pub python: SitePath,
    pub sudoers: Policy,
}

impl<'a> Context<'a> {
    fn new(terms: &'a Terms, platform: Platform, image: &'a Contents, expected: &'a Expectation<'a>) -> Self {
        let tree = &image.tree;
        Self {
            terms,
            platform,
            image,
            tree,
            expected,
            accounts: Accounts::read(tree),
            dpkg: dpkg::packages(tree),
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

    /// Whether the agent's process has all these permission bits (of `0o7`) on a node, by owner, group, or others.
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

    /// Whether the agent can reach `path`, a resolved one: every directory above it must let it through.
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
