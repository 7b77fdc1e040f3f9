//! Parses `build.toml`. Unknown keys are rejected with their line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::builders::{self, BuilderEntry};
use super::check::{self, Problem};
use super::registries::RegistryPolicy;
use crate::config::cache::Cache;
use crate::oci::Platform;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildFile {
    pub image: Image,
    pub project: Project,
    pub user: Identity,
    pub runtime: Runtime,
    pub distros: BTreeMap<String, Distro>,
    #[serde(default)]
    pub registries: Vec<RegistryPolicy>,
    /// The builders; if empty, the engine of the environment builds.
    #[serde(default, rename = "builder")]
    pub builders: Vec<BuilderEntry>,
    #[serde(default)]
    pub cache: Cache,
    #[serde(default)]
    pub engine: EngineSettings,
    /// The directory of the file, which contains `images/` and `dockerfiles/`.
    #[serde(skip)]
    pub root: PathBuf,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub digest: [u8; 32],
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    pub name: String,
    pub registry: String,
    pub prefix: String,
    pub distros: Vec<String>,
    pub platforms: Vec<Platform>,
    pub source_date_epoch: Option<i64>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    pub name: String,
    pub git: String,
    #[serde(rename = "ref")]
    pub reference: String,
    pub series: Vec<Series>,
}

/// Maps project refs to an OpenStack release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Glob patterns of refs.
    pub refs: Vec<String>,
    /// Name of the upper constraints file: `images/<name>/constraints/<this>.txt`.
    pub constraints: String,
    /// PEP 440 specifier of the supported Python versions.
    pub python: String,
}

/// The user that the agent runs as, and its supplementary groups.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    #[serde(default)]
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    pub gid: u32,
}

/// How obgp-runtime is compiled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Runtime {
    /// The distro whose base image and Rust toolchain compile it.
    pub distro: String,
}

/// How images leave the engine that built them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct EngineSettings {
    /// Read them from the storage of an engine on this machine, where root may.
    pub read_storage: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { read_storage: true }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Debian,
    Ubuntu,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Distro {
    pub family: Family,
    /// The archive's suite: `noble`, `bookworm`.
    pub suite: String,
    /// The release number: `24.04`, `12`.
    pub version: String,
    /// The base image in a registry.
    pub base: String,
    /// The distro's own interpreter, `MAJOR.MINOR`.
    pub python: String,
    /// The default project ref of this distro.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The archive for bootstrap and installation. Default: the distro's own.
    pub mirror: Option<String>,
}

impl BuildFile {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let mut file: BuildFile = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_path_buf(),
            source,
        })?;
        file.digest = Sha256::digest(&text).into();
        file.root = std::path::absolute(path)
            .map_err(read)?
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let problems = check::problems(&file, &text);
        if !problems.is_empty() {
            return Err(ConfigError::Values {
                path: path.to_path_buf(),
                problems,
            });
        }
        builders::check(&file.builders, &file.root)?;
        Ok(file)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{path}: {}", listed(problems), path = path.display())]
    Values { path: PathBuf, problems: Vec<Problem> },
    #[error("no build.toml in {dir} or above it\nhelp: name a file with --config FILE", dir = dir.display())]
    NotFound { dir: PathBuf },
    #[error("{0}")]
    Invalid(String),
}

/// One problem a line.
fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match lines.as_slice() {
        [only] => only.clone(),
        several => format!("{} wrong values\n  {}", several.len(), several.join("\n  ")),
    }
}
