//! Names of images become where they are and where they go.
//!
//! The form is Docker's: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`; without a host it is docker.io, whose names of one part are below `library/`.

use std::fmt;
use std::str::FromStr;

const HUB: &str = "docker.io";
const LONGEST_TAG: usize = 128;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As in names of images: `docker.io`, not the host that serves it.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
    /// Without tag and digest, as it was written.
    written: String,
}

impl Image {
    /// What the registry is asked for.
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
#[error("{text:?} is no {what}: {problem}")]
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
        let wrong = |problem| error(text, "name of an image", problem);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_string())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("after the @ a digest is expected, sha256:… or sha512:…"));
        }
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (written, tag) = match rest[name_at..].find(':') {
            Some(colon) => (&rest[..name_at + colon], Some(rest[name_at + colon + 1..].to_string())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "its tag has other characters than letters, digits, '_', '.', '-', or more than 128",
            ));
        }
        let (host, repository) = match written.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_string(), path.to_string()),
            Some(_) => (HUB.to_string(), written.to_string()),
            None => (HUB.to_string(), format!("library/{written}")),
        };
        if !is_repository(&repository) {
            return Err(wrong(
                "its parts are lower-case letters and digits, with '.', '_' or '-' between them",
            ));
        }
        Ok(Self {
            host,
            repository,
            tag,
            digest,
            written: written.to_string(),
        })
    }
}

/// One of the list: what to copy, and the name to give it instead of its own.
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

/// The registry to copy to, and what comes before all names there.
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
            None => (entry.source.written.as_str(), entry.source.tag.clone()),
        };
        let repository = match &self.prefix {
            Some(prefix) => format!("{prefix}/{name}"),
            None => name.to_string(),
        };
        if !is_repository(&repository) || tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            let problem = "a registry takes no port or capital letters there; \
                           give the image another name in the local registry: IMAGE=NAME[:TAG]";
            return Err(error(
                &format!("{}/{repository}", self.host),
                "name of an image",
                problem,
            ));
        }
        Ok(Image {
            host: self.host.clone(),
            written: repository.clone(),
            repository,
            // What is given by digest alone has no name but that.
            tag: tag.or_else(|| entry.source.digest.is_none().then(|| "latest".to_string())),
            digest: entry.source.digest.clone(),
        })
    }
}

/// Docker's rule for telling a host from the first part of a name.
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
    (1..=LONGEST_TAG).contains(&tag.len())
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
    fn names_are_those_of_docker_tag() {
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
    fn what_a_registry_would_not_take_is_refused_at_once() {
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
