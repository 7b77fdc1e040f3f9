//! Image references -> their registry, repository, tag and digest, and the destination in the local registry.
//!
//! The syntax is Docker's: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`. The default host is docker.io, where names of one part are in
//! `library/`.

use std::fmt;
use std::str::FromStr;

const HUB: &str = "docker.io";
const MAX_TAG: usize = 128;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As in image references: `docker.io`, not the host that serves it.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
    /// The name as given, without tag and digest.
    given: String,
}

impl Image {
    /// The reference in requests to the registry: the digest, else the tag.
    pub fn reference(&self) -> &str {
        let tag = self.tag.as_deref().unwrap_or("latest");
        self.digest.as_deref().unwrap_or(tag)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {problem}")]
pub struct ReferenceError {
    text: String,
    what: &'static str,
    problem: &'static str,
}

fn error(text: &str, what: &'static str, problem: &'static str) -> ReferenceError {
    ReferenceError {
        text: text.to_string(),
        what,
        problem,
    }
}

impl FromStr for Image {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |problem| error(text, "image reference", problem);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_string())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("a digest, sha256:… or sha512:…, is expected after @"));
        }
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (given, tag) = match rest[name_at..].find(':') {
            Some(colon) => (&rest[..name_at + colon], Some(rest[name_at + colon + 1..].to_string())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag must have at most 128 letters, digits, '_', '.' or '-'"));
        }
        let (host, repository) = match given.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_string(), path.to_string()),
            Some(_) => (HUB.to_string(), given.to_string()),
            None => (HUB.to_string(), format!("library/{given}")),
        };
        if !is_repository(&repository) {
            return Err(wrong(
                "its parts must consist of lower-case letters and digits, with '.', '_' or '-' between them",
            ));
        }
        Ok(Self {
            host,
            repository,
            tag,
            digest,
            given: given.to_string(),
        })
    }
}

/// An item of the list: the image to copy, and optionally its name in the local registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub source: Image,
    name: Option<String>,
}

impl FromStr for Entry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (source, name) = match text.split_once('=') {
            Some((source, name)) => (source, Some(name.to_string())),
            None => (text, None),
        };
        let source = source.parse()?;
        Ok(Self { source, name })
    }
}

/// The registry to copy to, with an optional prefix for all names.
#[derive(Clone, Debug)]
pub struct LocalRepo {
    host: String,
    prefix: Option<String>,
}

impl FromStr for LocalRepo {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, prefix) = match text.trim_end_matches('/').split_once('/') {
            Some((host, prefix)) => (host, Some(prefix.to_string())),
            None => (text.trim_end_matches('/'), None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(plain) || prefix.as_deref().is_some_and(|prefix| !is_repository(prefix))
        {
            return Err(error(
                text,
                "local repository",
                "HOST[:PORT] or HOST[:PORT]/PREFIX is expected",
            ));
        }
        Ok(Self {
            host: host.to_string(),
            prefix,
        })
    }
}

impl LocalRepo {
    pub fn destination(&self, entry: &Entry) -> Result<Image, ReferenceError> {
        let (name, tag) = match &entry.name {
            Some(name) => match name.split_once(':') {
                Some((name, tag)) => (name, Some(tag.to_string())),
                None => (name.as_str(), entry.source.tag.clone()),
            },
            None => (entry.source.given.as_str(), entry.source.tag.clone()),
        };
        let repository = match &self.prefix {
            Some(prefix) => format!("{prefix}/{name}"),
            None => name.to_string(),
        };
        if !is_repository(&repository) || tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            let problem = "a repository name must not have a port or capital letters; \
                           set another name for the local registry: IMAGE=NAME[:TAG]";
            return Err(error(
                &format!("{}/{repository}", self.host),
                "image reference",
                problem,
            ));
        }
        Ok(Image {
            host: self.host.clone(),
            given: repository.clone(),
            repository,
            // A reference with only a digest gets no tag.
            tag: tag.or_else(|| entry.source.digest.is_none().then(|| "latest".to_string())),
            digest: entry.source.digest.clone(),
        })
    }
}

/// Docker's rule to distinguish a host from the first part of a name.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
    };
    name.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub fn is_digest(digest: &str) -> bool {
    let hex = |hex: &str, length| {
        hex.len() == length && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match digest.split_once(':') {
        Some(("sha256", value)) => hex(value, 64),
        Some(("sha512", value)) => hex(value, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(image: &str, local: &str) -> Result<(String, String), String> {
        let entry: Entry = image.parse().map_err(|e: ReferenceError| e.to_string())?;
        let local: LocalRepo = local.parse().map_err(|e: ReferenceError| e.to_string())?;
        let destination = local.destination(&entry).map_err(|e| e.to_string())?;
        Ok((entry.source.to_string(), destination.to_string()))
    }

    #[test]
    fn destinations_are_those_of_docker_tag() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (image, source, destination) in [
            ("nginx", "docker.io/library/nginx", "r:5000/nginx:latest"),
            (
                "openstackhelm/a:1",
                "docker.io/openstackhelm/a:1",
                "r:5000/openstackhelm/a:1",
            ),
            ("quay.io/x/y/z:v1", "quay.io/x/y/z:v1", "r:5000/quay.io/x/y/z:v1"),
            ("h:5000/a:1=team/b:2", "h:5000/a:1", "r:5000/team/b:2"),
            ("h:5000/a:1=b", "h:5000/a:1", "r:5000/b:1"),
            ("localhost/a:1", "localhost/a:1", "r:5000/localhost/a:1"),
            (
                &format!("q.io/a@{digest}"),
                &format!("q.io/a@{digest}"),
                &format!("r:5000/q.io/a@{digest}"),
            ),
            (
                &format!("q.io/a:1@{digest}"),
                &format!("q.io/a:1@{digest}"),
                &format!("r:5000/q.io/a:1@{digest}"),
            ),
        ] {
            assert_eq!(
                copied(image, "r:5000"),
                Ok((source.to_string(), destination.to_string())),
                "{image}"
            );
        }
        assert_eq!(copied("a:1", "r/cache/").unwrap().1, "r/cache/a:1");
    }

    #[test]
    fn invalid_references_are_rejected() {
        for (image, problem) in [
            ("h:5000/a:1", "IMAGE=NAME"),
            ("a:", "its tag"),
            ("a:.b", "its tag"),
            ("A/b/C", "lower-case"),
            ("a//b", "lower-case"),
            ("a/../b", "lower-case"),
            ("a@sha256:12", "digest"),
            ("a b", "lower-case"),
            ("a=B", "IMAGE=NAME"),
        ] {
            let error = copied(image, "r:5000").unwrap_err();
            assert!(error.contains(problem), "{image}: {error}");
        }
        for local in ["", "http://r:5000", "r:5000/A", "r 1"] {
            assert!(copied("a", local).unwrap_err().contains("local repository"), "{local}");
        }
    }
}
