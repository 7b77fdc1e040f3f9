//! `[[builder]]` of build.toml: the engines and buildkitds that build, their endpoints, platforms and slots.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::readable;
use super::file::ConfigError;
use crate::engine::endpoint::TlsFiles;
use crate::engine::{Address, Endpoint, Origin};
use crate::oci::Platform;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuilderEntry {
    /// The builder's name in plans, progress and reports.
    pub name: String,
    /// A Docker engine, as in `DOCKER_HOST`: `unix:///PATH`, `ssh://USER@HOST`, `tcp://HOST:PORT`. Or a buildkitd at
    /// `unix://` or `tcp://`. The first answer shows which of the two it is.
    pub endpoint: String,
    /// The platforms that it may build. Default: every platform that it can run, natively or emulated.
    pub platforms: Option<Vec<Platform>>,
    /// Number of concurrent solves.
    #[serde(default = "two")]
    pub slots: NonZeroU16,
    /// PEM files for `tcp://`: the CA of the builder's certificate (default: the system's CAs), the client certificate
    /// and its key.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

fn two() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(1)
}

impl BuilderEntry {
    /// Relative paths are resolved against `root`, the directory of build.toml.
    pub fn endpoint(&self, root: &Path) -> Result<Endpoint, ConfigError> {
        let refused = |what: &str| ConfigError::Invalid(format!("builder {:?} of build.toml: {what}", self.name));
        let from_root = |path: &PathBuf| root.join(path);
        let client = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((from_root(cert), from_root(key))),
            (None, None) => None,
            _ => return Err(refused("cert and key belong together")),
        };
        let ca = self.ca.as_ref().map(from_root);
        let tls = (ca.is_some() || client.is_some()).then_some(TlsFiles { ca, client });
        let address = Address::parse(&self.endpoint, tls.clone()).map_err(|e| refused(&e.to_string()))?;
        if tls.is_some() && !matches!(address, Address::Tcp { .. }) {
            return Err(refused("ca, cert and key are for tcp:// endpoints"));
        }
        Ok(Endpoint {
            address,
            origin: Origin::Builder(self.name.clone()),
        })
    }
}

/// Rejects invalid entries without a connection: duplicate or empty names, endpoints that do not parse, no platforms.
pub fn check(entries: &[BuilderEntry], root: &Path) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    for entry in entries {
        if entry.name.is_empty() || !names.insert(&entry.name) {
            return Err(ConfigError::Invalid(format!(
                "build.toml has two builders named {:?}, or one without a name",
                entry.name
            )));
        }
        if entry.platforms.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::Invalid(format!(
                "builder {:?} of build.toml has an empty list of platforms\nhelp: remove `platforms` to allow every platform that the builder can run",
                entry.name
            )));
        }
        entry.endpoint(root)?;
    }
    Ok(())
}

/// Rejects builders whose certificates cannot be read: a builder that is only skipped would hide the typing error.
pub fn check_files(entries: &[BuilderEntry], root: &Path) -> Result<(), ConfigError> {
    for entry in entries {
        for path in [&entry.ca, &entry.cert, &entry.key].into_iter().flatten() {
            readable(&root.join(path))
                .map_err(|reason| ConfigError::Invalid(format!("builder {:?} of build.toml: {reason}", entry.name)))?;
        }
    }
    Ok(())
}

/// The builders with these names, in the file's order; all builders if no name is given.
pub fn pick(entries: &[BuilderEntry], asked: &[String]) -> Result<Vec<BuilderEntry>, ConfigError> {
    if let Some(unknown) = asked.iter().find(|name| entries.iter().all(|e| e.name != **name)) {
        let known: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
        return Err(ConfigError::Invalid(match known.is_empty() {
            true => format!("no builder {unknown:?}: build.toml has no [[builder]]"),
            false => format!("no builder {unknown:?} in build.toml; it has {}", known.join(", ")),
        }));
    }
    Ok(entries
        .iter()
        .filter(|entry| asked.is_empty() || asked.contains(&entry.name))
        .cloned()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        builder: Vec<BuilderEntry>,
    }

    fn entries(text: &str) -> Vec<BuilderEntry> {
        toml::from_str::<File>(text).unwrap().builder
    }

    #[test]
    fn files_are_found_from_build_toml_and_tcp_with_them_means_tls() {
        let entry = &entries(
            "[[builder]]\nname = 'far'\nendpoint = 'tcp://far.example'\nca = 'certs/ca.pem'\ncert = '/c.pem'\nkey = 'k.pem'",
        )[0];
        assert_eq!(entry.slots.get(), 2);
        let endpoint = entry.endpoint(Path::new("/project")).unwrap();
        assert_eq!(endpoint.to_string(), "tcp://far.example:2376 (builder \"far\")");
        let Address::Tcp { tls: Some(tls), .. } = endpoint.address else {
            panic!("no TLS in {endpoint:?}");
        };
        assert_eq!(tls.ca.unwrap(), Path::new("/project/certs/ca.pem"));
        assert_eq!(tls.client.unwrap(), ("/c.pem".into(), "/project/k.pem".into()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let unix = "[[builder]]\nname = 'a'\nendpoint = 'unix:///s'\n";
        for (text, why) in [
            (unix.repeat(2), "two builders"),
            (format!("{unix}ca = 'x'"), "for tcp://"),
            (unix.replace("unix", "http"), "not supported"),
            (
                unix.replace("unix:///s", "tcp://h\"\ncert = \"c").replace('\'', "\""),
                "belong together",
            ),
            (format!("{unix}platforms = []"), "empty list"),
        ] {
            let error = check(&entries(&text), Path::new("/")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(toml::from_str::<File>(&format!("{unix}slots = 0")).is_err());
        assert!(toml::from_str::<File>(&format!("{unix}driver = 'remote'")).is_err());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known() {
        let all =
            entries("[[builder]]\nname = 'a'\nendpoint = 'unix:///s'\n[[builder]]\nname = 'b'\nendpoint = 'ssh://h'");
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|a| a.to_string()).collect();
            pick(&all, &asked).map(|some| some.into_iter().map(|e| e.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        assert!(names(&["c"]).unwrap_err().to_string().contains("it has a, b"));
    }
}
