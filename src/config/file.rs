//! `build.toml` as it stands on disk. Unknown keys are refused, with the line they stand in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::builders::{self, BuilderEntry};
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
    /// The engines that build; without any, the one of the environment.
    #[serde(default, rename = "builder")]
    pub builders: Vec<BuilderEntry>,
    #[serde(default)]
    pub cache: Cache,
    /// The directory that the file stands in: `images/` and `dockerfiles/` are found from here.
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

/// Which OpenStack release a project ref belongs to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Glob patterns of refs.
    pub refs: Vec<String>,
    /// Name of the upper constraints: `images/<name>/constraints/<this>.txt`.
    pub constraints: String,
    /// PEP 440 specifier of the interpreters it runs on.
    pub python: String,
}

/// The user that the agent runs as, and the groups it is in besides its own.
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

/// How obgp-runtime comes to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Runtime {
    /// The distro whose base it is compiled on, and whose Rust compiles it.
    pub distro: String,
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
    /// The release number people know: `24.04`, `12`.
    pub version: String,
    /// The base image in a registry.
    pub base: String,
    /// The distro's own interpreter, `MAJOR.MINOR`.
    pub python: String,
    /// The project ref this distro takes when none is asked for.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The archive to bootstrap and install from, instead of the distro's own.
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
        builders::check(&file.builders, &file.root)?;
        Ok(file)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("no build.toml in {dir} or above it; name one with --config FILE", dir = dir.display())]
    NotFound { dir: PathBuf },
    #[error("{0}")]
    Invalid(String),
}
