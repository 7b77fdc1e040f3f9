//! `[[registries]]` of build.toml: how registries are reached, and what may be done to their tags.

use std::path::PathBuf;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Deserializer};

/// The first entry whose `host` fits is a registry's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryPolicy {
    /// `HOST[:PORT]` as in image names, or a pattern.
    pub host: Pattern,
    /// PEM certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// For registries that know their clients by certificate; PEM.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// Without TLS. Loopback needs no saying.
    #[serde(default)]
    pub plain_http: bool,
    /// `REPOSITORY:TAG` patterns: a tag that exists keeps its digest.
    #[serde(default)]
    pub immutable: Vec<Pattern>,
    /// `REPOSITORY:TAG` patterns: pushes leave the record of their time that `prune` goes by.
    #[serde(default)]
    pub temporary: Vec<Pattern>,
}

/// A glob; `*` goes over slashes too.
#[derive(Clone, Debug)]
pub struct Pattern(GlobMatcher);

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let glob = Glob::new(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(glob.compile_matcher()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_go_over_slashes_and_bad_ones_are_refused() {
        let policy: RegistryPolicy =
            toml::from_str("host = \"*.example:*\"\nimmutable = [\"*:[0-9]*\", \"team/*:release\"]").unwrap();
        assert!(policy.host.matches("reg.example:5000") && !policy.host.matches("docker.io"));
        assert!(policy.immutable[0].matches("a/b/c:7.0.0-ubuntu_noble") && !policy.immutable[0].matches("a/b:latest"));
        assert!(policy.immutable[1].matches("team/x/y:release"));
        assert!(toml::from_str::<RegistryPolicy>("host = \"[\"").is_err());
        assert!(toml::from_str::<RegistryPolicy>("host = \"x\"\ninsecure = true").is_err());
    }
}
