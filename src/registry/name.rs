//! What a person writes, `HOST[:PORT]/PATH[:TAG][@DIGEST]`, becomes a repository and what is meant in it.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use super::error::RegistryError;

/// A repository: `docker.io/openstackhelm/ovn-bgp-agent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    /// Host and port, as people write them.
    pub registry: String,
    pub path: String,
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// An image in a registry. A digest, where there is one, is what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    pub repository: RepositoryName,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// What follows `/manifests/`: the digest, else the tag.
    pub fn target(&self) -> Option<String> {
        self.digest.as_ref().map(Digest::to_string).or_else(|| self.tag.clone())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = RegistryError;

    /// The registry has to be named: what is published must not go to Docker Hub because a host was forgotten.
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bad = |reason: String| RegistryError::Name {
            text: text.to_string(),
            reason,
        };
        let names_host = text
            .split_once('/')
            .is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
        if !names_host {
            return Err(bad(format!(
                "it names no registry; say HOST/PATH[:TAG], for instance docker.io/library/{text}"
            )));
        }
        let parsed: Reference = text.parse().map_err(|e| bad(format!("{e}")))?;
        // The parser makes up the tag "latest".
        let last = text.split('@').next().unwrap_or_default().rsplit('/').next();
        let says_tag = last.is_some_and(|last| last.contains(':'));
        let digest = parsed.digest().map(str::parse).transpose();
        Ok(Self {
            repository: RepositoryName {
                registry: parsed.registry().to_string(),
                path: parsed.repository().to_string(),
            },
            tag: parsed.tag().filter(|_| says_tag).map(str::to_string),
            digest: digest.map_err(|e| bad(format!("{e}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_says_registry_path_and_what_is_meant() {
        let parse = |text: &str| text.parse::<ImageReference>().unwrap();
        let full = parse("reg:5000/a/b:c");
        assert_eq!(full.repository.registry, "reg:5000");
        assert_eq!((full.repository.path.as_str(), full.tag.as_deref()), ("a/b", Some("c")));
        assert_eq!(parse("localhost/x").tag, None);
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = parse(&format!("quay.io/a:t@{digest}"));
        assert_eq!(pinned.target().as_deref(), Some(digest.as_str()));
        assert_eq!(pinned.to_string(), format!("quay.io/a:t@{digest}"));
    }

    #[test]
    fn without_a_registry_it_is_refused() {
        for text in ["ubuntu", "ubuntu:24.04", "library/ubuntu", "reg:5000/UPPER"] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
