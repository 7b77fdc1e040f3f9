//! `[[registries]]` of build.toml: how to connect to registries, and which of their tags are immutable or temporary.

use std::path::PathBuf;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Deserializer};

/// Settings of one registry: the first entry whose `host` matches applies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryPolicy {
    /// `HOST[:PORT]` as in image names, or a pattern.
    pub host: Pattern,
    /// PEM certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// PEM client certificate, for registries that require one.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// Use plain HTTP. Loopback registries may always use it.
    #[serde(default)]
    pub plain_http: bool,
    /// `REPOSITORY:TAG` patterns of tags that must not move to another digest.
    #[serde(default)]
    pub immutable: Vec<Pattern>,
    /// `REPOSITORY:TAG` patterns of tags whose pushes record a time, which `prune` reads.
    #[serde(default)]
    pub temporary: Vec<Pattern>,
}

/// A glob; `*` also matches slashes.
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
