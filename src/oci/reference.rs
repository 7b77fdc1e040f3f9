//! Parses `HOST[:PORT]/PATH[:TAG][@DIGEST]` into a repository with a tag or digest.
//!
//! The grammar is distribution's (<https://pkg.go.dev/github.com/distribution/reference>). oci-spec's parser compiles a
//! regular expression, which takes longer than the rest of a run without work; a test compares this parser with it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use oci_spec::image::Digest;

/// A text that is not a valid image reference.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an image reference: {reason}")]
pub struct ReferenceError {
    pub text: String,
    pub reason: String,
}

/// A repository: `docker.io/openstackhelm/ovn-bgp-agent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    /// Host and port, as in references.
    pub registry: String,
    pub path: String,
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// An image in a registry. If there is a digest, it takes precedence over the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    pub repository: RepositoryName,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// The last component of the `/manifests/` URL: the digest, else the tag.
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
    type Err = ReferenceError;

    /// The registry is required, so that a forgotten host does not publish to Docker Hub.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = |reason: String| ReferenceError {
            text: text.to_string(),
            reason,
        };
        if text.split_once('/').is_none_or(|(first, _)| !is_host(first)) {
            return Err(bad(format!(
                "it has no registry\nhelp: write HOST/PATH[:TAG], for example docker.io/library/{text}"
            )));
        }
        Self::familiar(text).map_err(bad)
    }
}

const DOCKER_HUB: &str = "docker.io";
/// Maximum length of a repository's path.
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

impl ImageReference {
    /// Parses a reference as Docker does: without a host it is on Docker Hub.
    pub fn familiar(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| e.to_string())?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("{tag:?} is not a valid tag"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_string()),
            _ => (DOCKER_HUB, name.to_string()),
        };
        let registry = match registry {
            "index.docker.io" => DOCKER_HUB,
            other => other,
        };
        let path = match registry {
            DOCKER_HUB if !path.contains('/') => format!("library/{path}"),
            _ => path,
        };
        if !is_host_and_port(registry) {
            return Err(format!("{registry:?} is not a valid registry"));
        }
        if path.len() > LONGEST_PATH || !path.split('/').all(is_path_component) {
            let upper = path.contains(|c: char| c.is_ascii_uppercase());
            let hint = if upper { ": repositories must be lower case" } else { "" };
            return Err(format!("{path:?} is not a valid repository{hint}"));
        }
        Ok(Self {
            repository: RepositoryName {
                registry: registry.to_string(),
                path,
            },
            tag: tag.map(str::to_string),
            digest,
        })
    }
}

/// Whether the first component of a name is a registry host rather than a Docker Hub path.
fn is_host(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

fn is_host_and_port(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_address = address.parse::<Ipv6Addr>().is_ok();
        return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or any number of hyphens.
fn is_path_component(component: &str) -> bool {
    let is_run = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = |c: Option<char>| c.is_some_and(is_run);
    ends(component.chars().next())
        && ends(component.chars().next_back())
        && component
            .split(is_run)
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= LONGEST_TAG && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn oci_spec_reads_the_same(
            text in "([a-zA-Z0-9.-]{0,6}(:[0-9]{0,3})?/)?([a-z0-9._/-]{1,10}|[a-zA-Z0-9._/:-]{1,8})(:[a-zA-Z0-9_.-]{0,4})?(@sha256:[0-9a-f]{63,65})?",
        ) {
            let ours = ImageReference::familiar(&text);
            match text.parse::<Reference>() {
                // oci-spec accepts capital letters in the position of a host.
                Ok(theirs) if theirs.repository().contains(|c: char| c.is_ascii_uppercase()) => {
                    prop_assert!(ours.is_err());
                }
                Ok(theirs) => {
                    let ours = ours.unwrap();
                    prop_assert_eq!(ours.repository.registry, theirs.registry());
                    prop_assert_eq!(ours.repository.path, theirs.repository());
                    let digest = ours.digest.map(|d| d.to_string());
                    prop_assert_eq!(digest.as_deref(), theirs.digest());
                    // oci-spec adds the tag "latest".
                    if ours.tag.is_some() {
                        prop_assert_eq!(ours.tag.as_deref(), theirs.tag());
                    }
                }
                Err(_) => prop_assert!(ours.is_err(), "{:?}", ours),
            }
        }
    }

    #[test]
    fn a_tag_and_a_path_have_their_lengths() {
        let tag = |length: usize| ImageReference::familiar(&format!("a:{}", "t".repeat(length)));
        assert!(tag(128).is_ok() && tag(129).is_err());
        let path = |length: usize| ImageReference::familiar(&format!("reg:1/{}", "p".repeat(length)));
        assert!(path(255).is_ok() && path(256).is_err());
    }

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
    fn a_registry_may_be_an_ipv6_address_in_brackets() {
        for (text, registry, path, tag) in [
            ("[::1]:5000/a", "[::1]:5000", "a", None),
            ("[::1]/a/b:c", "[::1]", "a/b", Some("c")),
            ("[2001:db8::1]:5000/a/b:c", "[2001:db8::1]:5000", "a/b", Some("c")),
            ("[::ffff:127.0.0.1]:5000/a", "[::ffff:127.0.0.1]:5000", "a", None),
        ] {
            let parsed: ImageReference = text.parse().unwrap();
            assert_eq!(
                (parsed.repository.registry.as_str(), parsed.repository.path.as_str()),
                (registry, path)
            );
            assert_eq!(parsed.tag.as_deref(), tag);
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "::1/a",
            "[::1/a",
            "::1]/a",
            "[::1]5000/a",
            "[::1]:/a",
            "[]:5000/a",
            "[r]:5000/a",
            "[::1%eth0]:5000/a",
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_registry_it_is_refused() {
        for text in ["ubuntu", "ubuntu:24.04", "library/ubuntu", "reg:5000/UPPER"] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
