//! Parses `images/<name>.toml` into the terms that the rules check an image against.
//!
//! Strings may contain `{user}`, `{uid}`, `{gid}`, `{home}`, `{python}`, `{project}`, `{suite}`, `{arch}` and `{gnu}`
//! (the architecture in Debian's and GNU's names), which `build.toml` and the platform replace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use super::Expectation;
use crate::image::ImageError;
use crate::oci::Platform;

/// The contract's text.
#[derive(Clone, Debug)]
pub struct Contract {
    path: PathBuf,
    text: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
}

/// The contract for one identity, distro and platform.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Terms {
    pub accounts: AccountTerms,
    pub sudoers: SudoersTerms,
    pub configuration_files: Vec<ConfigurationFiles>,
    pub python: PythonTerms,
    pub commands: CommandTerms,
    pub packages: PackageTerms,
    pub files: FileTerms,
    pub origin: OriginTerms,
    pub permissions: PermissionTerms,
    pub leftovers: ForbiddenPaths,
    pub secrets: SecretTerms,
    pub host: HostTerms,
    pub symlinks: SymlinkTerms,
    pub config: ConfigTerms,
    pub size: BTreeMap<Platform, Budget>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AccountTerms {
    /// The agent's shell.
    pub shell: String,
    /// Shells that allow no login.
    pub no_shells: Vec<String>,
    /// Users that may have another shell.
    pub shell_users: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SudoersTerms {
    pub mode: Mode,
    /// The only allowed grants: lines of sudoers, including aliases.
    pub grants: String,
    /// The required Defaults, and the only allowed ones.
    pub defaults: Vec<String>,
}

/// Files whose lines are known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ConfigurationFiles {
    pub directory: String,
    /// Patterns of names in the directory.
    pub names: Patterns,
    /// Patterns of the allowed lines, with single spaces between words. Blank lines and comments are always allowed.
    pub lines: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PythonTerms {
    /// Files in RECORD that may be missing.
    pub trimmed: Patterns,
    /// Names of `.pth` files that may run code at interpreter start.
    pub pth_code: Patterns,
    /// Required console scripts.
    pub scripts: Vec<String>,
    /// Modules that must be importable, besides those of the requirements.
    pub modules: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CommandTerms {
    /// Names looked up in the image's PATH, or absolute paths.
    pub required: Vec<String>,
    /// Patterns of names that must not be in any directory of PATH.
    pub forbidden: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PackageTerms {
    pub required: Vec<String>,
    /// Patterns of package names.
    pub forbidden: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FileTerms {
    pub forbidden: Patterns,
    #[serde(default)]
    pub required: Vec<PathTerms>,
    /// Paths that must exist because a read-only root mounts over them or writes to them.
    #[serde(default)]
    pub read_only_root: Vec<PathTerms>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PathTerms {
    pub path: String,
    pub kind: Kind,
    pub mode: Option<Mode>,
    /// A user name.
    pub owner: Option<String>,
    /// A group name.
    pub group: Option<String>,
    /// Required lines of a file, ignoring white space at the ends and between words.
    #[serde(default)]
    pub lines: Vec<String>,
    /// The maximum size of a file.
    pub max_bytes: Option<u64>,
    /// Whether the program must be static: without loader and libraries.
    #[serde(default)]
    pub r#static: bool,
    /// The target of a symbolic link, as stored in it.
    pub target: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct OriginTerms {
    /// Packaged paths that may be missing.
    pub trimmed: Patterns,
    /// Paths that the build's own list may name.
    pub built: Patterns,
    /// Paths of the base that no package has. Files and links of them must be in its layer, the first.
    pub base: Patterns,
    /// Paths that programs write while packages are installed.
    pub generated: Patterns,
    /// From a path to the packaged path that it is a copy of.
    pub copies: BTreeMap<String, String>,
    pub texts: Vec<TextTerms>,
}

/// A generated text file, without comments and empty lines; white space between words counts as one space.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TextTerms {
    pub path: String,
    /// All lines, in order.
    pub lines: Vec<String>,
    /// Lines that may be anywhere between them.
    #[serde(default)]
    pub optional: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PermissionTerms {
    /// Path to mode of files with setuid or setgid.
    pub setuid: BTreeMap<String, Mode>,
    /// Path to capabilities (`cap_net_raw=ep`).
    pub capabilities: BTreeMap<String, String>,
    pub world_writable: Patterns,
    pub agent_writable: Patterns,
    pub devices: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ForbiddenPaths {
    pub forbidden: Patterns,
    pub allowed: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SecretTerms {
    /// Patterns of paths that usually contain secrets.
    pub names: Patterns,
    pub allowed: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct HostTerms {
    /// Archives allowed in apt's sources.
    pub archives: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SymlinkTerms {
    /// Link targets that exist only at run time.
    pub runtime: Patterns,
    /// Links that may dangle.
    pub dangling: Patterns,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ConfigTerms {
    pub user: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: Vec<String>,
    pub stop_signal: Option<String>,
    /// The exact PATH.
    pub path: String,
    /// Variables allowed besides PATH.
    pub env: Patterns,
    /// Variables with required values.
    #[serde(default)]
    pub env_values: BTreeMap<String, String>,
    pub labels: BTreeMap<String, LabelFormat>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelFormat {
    Text,
    /// RFC 3339.
    Timestamp,
    /// `sha256:` and 64 hexadecimal digits.
    Digest,
    Url,
    /// A git commit (40 hexadecimal digits), or a version if the source was a release.
    Revision,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Budget {
    pub compressed_mib: u64,
    pub uncompressed_mib: u64,
}

/// Permission bits, in octal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(pub u32);

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|m| *m <= 0o7777)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not an octal mode, for example \"0440\"")))
    }
}

/// Glob patterns: `*` does not match slashes, `**` does. Absolute paths are matched without their first slash, as in
/// the tree.
#[derive(Clone)]
pub(crate) struct Patterns {
    set: GlobSet,
    written: Vec<String>,
}

impl Patterns {
    pub fn new(written: Vec<String>) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in &written {
            let relative = pattern.strip_prefix('/').unwrap_or(pattern);
            set.add(
                GlobBuilder::new(relative)
                    .literal_separator(true)
                    .empty_alternates(true)
                    .build()?,
            );
        }
        Ok(Self {
            set: set.build()?,
            written,
        })
    }

    pub fn matches(&self, path: &str) -> bool {
        self.set.is_match(path)
    }

    /// The matching pattern, as written.
    pub fn find(&self, path: &str) -> Option<&str> {
        // Almost no path matches any pattern, and this check is cheaper.
        if !self.matches(path) {
            return None;
        }
        Some(&self.written[*self.set.matches(path).first()?])
    }
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl Contract {
    /// Reads the contract and checks its syntax.
    pub fn load(path: &Path) -> Result<Self, ContractError> {
        let contract = Self::read(path)?;
        contract.check_form()?;
        Ok(contract)
    }

    /// Reads the contract without checking it: sufficient for looking up a cached verdict.
    pub fn read(path: &Path) -> Result<Self, ContractError> {
        let text = std::fs::read_to_string(path).map_err(|source| ContractError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self::new(path, text))
    }

    /// `path` is used in messages.
    pub fn new(path: &Path, text: String) -> Self {
        Self {
            path: path.to_path_buf(),
            digest: Sha256::digest(&text).into(),
            text,
        }
    }

    /// Checks the syntax. These errors contain a line number, unlike those of [`Self::terms`].
    pub fn check_form(&self) -> Result<(), ContractError> {
        self.parse::<Terms>().map(|_| ())
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, ContractError> {
        toml::from_str(&self.text).map_err(|source| ContractError::Parse {
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn terms(&self, expected: &Expectation, platform: Platform) -> Result<Terms, ContractError> {
        let identity = expected.identity;
        let values = [
            ("{user}", identity.name.clone()),
            ("{uid}", identity.uid.to_string()),
            ("{gid}", identity.gid.to_string()),
            ("{home}", identity.home.clone()),
            ("{python}", expected.distro.python.clone()),
            ("{suite}", expected.distro.suite.clone()),
            ("{project}", expected.project.to_string()),
            ("{arch}", platform.architecture().name().to_string()),
            ("{gnu}", platform.architecture().gnu_name().to_string()),
        ];
        let filled = fill(toml::Value::Table(self.parse()?), &values);
        let terms: Terms = filled.try_into().map_err(|source| ContractError::Parse {
            path: self.path.clone(),
            source,
        })?;
        super::sudoers::parse_contract(&terms.sudoers)
            .map(|_| terms)
            .map_err(|what| ContractError::Sudoers {
                path: self.path.clone(),
                what,
            })
    }
}

fn fill(value: toml::Value, values: &[(&str, String)]) -> toml::Value {
    let text = |s: String| values.iter().fold(s, |s, (name, with)| s.replace(name, with));
    match value {
        toml::Value::String(s) => toml::Value::String(text(s)),
        toml::Value::Array(items) => toml::Value::Array(items.into_iter().map(|v| fill(v, values)).collect()),
        toml::Value::Table(table) => {
            toml::Value::Table(table.into_iter().map(|(k, v)| (text(k), fill(v, values))).collect())
        }
        other => other,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("reading the contract {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{path}: [sudoers] {what}", path = path.display())]
    Sudoers { path: PathBuf, what: String },
    #[error(transparent)]
    Image(#[from] ImageError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/images/ovn-bgp-agent.toml")).unwrap();
        let error = Contract::new(Path::new("c.toml"), format!("{text}\n[suid]\n"))
            .check_form()
            .unwrap_err();
        assert!(error.to_string().contains("unknown field `suid`"), "{error}");
        assert!(error.to_string().contains("line"), "{error}");
    }

    #[test]
    fn a_star_stays_in_its_directory() {
        let p = Patterns::new(vec!["/var/log/*".into(), "/root/.cache/**".into()]).unwrap();
        assert!(p.matches("var/log/dpkg.log") && !p.matches("var/log/apt/term.log"));
        assert_eq!(p.find("root/.cache/a/b"), Some("/root/.cache/**"));
    }

    #[test]
    fn an_alternative_may_be_empty() {
        let p = Patterns::new(vec!["pip{,3}{,.*}".into()]).unwrap();
        assert!(["pip", "pip3", "pip3.12"].iter().all(|n| p.matches(n)) && !p.matches("pipe"));
    }
}
