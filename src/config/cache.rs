//! Parses `--cache-from` and `--cache-to`, in buildx's syntax, into typed values.
//!
//! <https://docs.docker.com/build/cache/backends/>

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::oci::{ImageReference, Platform};

/// The source or the destination of a solve's cache: `type=registry,ref=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    pub kind: CacheType,
    /// The other fields, passed to BuildKit unchanged.
    pub attrs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// A separate cache image in a registry, or (import only) an image with an inline cache.
    Registry,
    /// A directory on this machine: a content store that BuildKit reads and writes through the session.
    Local,
    /// Inside the built image.
    Inline,
}

/// The requested caches, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    #[serde(default)]
    pub from: Vec<CacheEntry>,
    #[serde(default)]
    pub to: Vec<CacheEntry>,
}

/// The attributes that name the directory of a local cache: to read, to write.
const DIRECTORIES: [&str; 2] = ["src", "dest"];

impl Cache {
    /// Rejects an import without a source and an export without a destination.
    pub fn check(&self) -> Result<(), String> {
        let lacks = |entries: &[CacheEntry], key| {
            let local = entries.iter().filter(|e| e.kind == CacheType::Local);
            local
                .clone()
                .find(|e| !e.attrs.contains_key(key))
                .map(CacheEntry::to_string)
        };
        if let Some(entry) = lacks(&self.from, "src") {
            return Err(format!("cache-from {entry}: a local cache needs src=DIR to read from"));
        }
        if self.from.iter().any(|entry| entry.kind == CacheType::Inline) {
            return Err("cache-from type=inline: an inline cache is read as type=registry,ref=IMAGE".into());
        }
        match lacks(&self.to, "dest") {
            Some(entry) => Err(format!("cache-to {entry}: a local cache needs dest=DIR to write to")),
            None => Ok(()),
        }
    }

    /// Fills in `{distro}` and `{arch}` of a target.
    pub fn for_target(&self, distro: &str, platform: Platform) -> Self {
        let filled = |entries: &[CacheEntry]| entries.iter().map(|e| e.for_target(distro, platform)).collect();
        Self {
            from: filled(&self.from),
            to: filled(&self.to),
        }
    }
}

impl FromStr for CacheEntry {
    type Err = String;

    /// Accepts a CSV line of `KEY=VALUE` fields, or a reference alone, which means `type=registry`.
    fn from_str(text: &str) -> Result<Self, String> {
        let fields = fields(text)?;
        if let [reference] = fields.as_slice()
            && !reference.is_empty()
            && !reference.contains('=')
        {
            ImageReference::familiar(reference)?;
            return Ok(Self::registry(reference));
        }
        let mut attrs = BTreeMap::new();
        for field in &fields {
            let (key, value) = field
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| format!("{field:?} is not KEY=VALUE, for example type=registry,ref=HOST/PATH:TAG"))?;
            if attrs.insert(key.trim().to_lowercase(), value.to_string()).is_some() {
                return Err(format!("duplicate field {key}"));
            }
        }
        let kind = match attrs.remove("type").as_deref() {
            Some("registry") => CacheType::Registry,
            Some("inline") => CacheType::Inline,
            Some("local") => CacheType::Local,
            Some(other) => return Err(format!("type={other} is not supported; use registry, local or inline")),
            None => return Err("type is missing, for example type=registry,ref=HOST/PATH:TAG".into()),
        };
        let entry = Self { kind, attrs };
        match entry.kind {
            CacheType::Registry => {
                let reference = entry.attrs.get("ref").ok_or("type=registry needs ref=HOST/PATH:TAG")?;
                // Any value does for a placeholder.
                let example = reference.replace("{distro}", "distro").replace("{arch}", "arch");
                ImageReference::familiar(&example)?;
                Ok(entry)
            }
            CacheType::Local if !DIRECTORIES.iter().any(|key| entry.attrs.contains_key(*key)) => {
                Err("type=local needs src=DIR to import or dest=DIR to export".into())
            }
            _ => Ok(entry),
        }
    }
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.as_bytes());
    match reader.records().next() {
        Some(Ok(record)) => Ok(record.iter().map(str::to_string).collect()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the value is empty".into()),
    }
}

impl CacheEntry {
    fn registry(reference: &str) -> Self {
        Self {
            kind: CacheType::Registry,
            attrs: BTreeMap::from([("ref".to_string(), reference.to_string())]),
        }
    }

    fn for_target(&self, distro: &str, platform: Platform) -> Self {
        let fill = |value: &String| {
            value
                .replace("{distro}", distro)
                .replace("{arch}", platform.architecture().name())
        };
        Self {
            kind: self.kind,
            attrs: self
                .attrs
                .iter()
                .map(|(key, value)| (key.clone(), fill(value)))
                .collect(),
        }
    }

    /// Resolves the directory of a local cache against `root`.
    pub fn rooted(&self, root: &Path) -> Self {
        let mut entry = self.clone();
        for (key, value) in &mut entry.attrs {
            if self.kind == CacheType::Local && DIRECTORIES.contains(&key.as_str()) {
                *value = root.join(&*value).to_string_lossy().into_owned();
            }
        }
        entry
    }
}

impl CacheType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Local => "local",
            Self::Inline => "inline",
        }
    }
}

impl fmt::Display for CacheEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type={}", self.kind.name())?;
        self.attrs
            .iter()
            .try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

impl<'de> Deserialize<'de> for CacheEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildx_s_syntax_is_read() {
        let shown = |text: &str| text.parse::<CacheEntry>().map(|entry| entry.to_string());
        for (text, read) in [
            ("user/app:cache", "type=registry,ref=user/app:cache"),
            (
                "type=registry,ref=h:1/p:t,mode=max",
                "type=registry,mode=max,ref=h:1/p:t",
            ),
            ("ref=h/p,type=registry", "type=registry,ref=h/p"),
            ("type=local,\"src=a,b\"", "type=local,src=a,b"),
            ("type=inline", "type=inline"),
            ("type=local,dest=d,mode=max", "type=local,dest=d,mode=max"),
        ] {
            assert_eq!(shown(text).unwrap(), read, "{text}");
        }
        for (text, why) in [
            ("", "empty"),
            ("type=gha", "not supported"),
            ("type=registry", "needs ref"),
            ("type=local,mode=max", "needs src"),
            ("ref=x", "type is missing"),
            ("type=registry,ref=a,ref=b", "duplicate field"),
            ("type=registry,mode", "KEY=VALUE"),
        ] {
            assert!(shown(text).unwrap_err().contains(why), "{text}: {:?}", shown(text));
        }
    }

    #[test]
    fn a_directory_is_read_on_one_side_and_written_on_the_other() {
        let entry = |text: &str| text.parse::<CacheEntry>().unwrap();
        let cache = Cache {
            from: vec![entry("type=local,src=a")],
            to: vec![entry("type=local,dest=/b,mode=max"), entry("h/p:t")],
        };
        assert_eq!(cache.check(), Ok(()));
        let swapped = Cache {
            from: cache.to.clone(),
            to: cache.from.clone(),
        };
        assert!(swapped.check().unwrap_err().contains("needs src=DIR"));
        let rooted = |entry: &CacheEntry| entry.rooted(Path::new("/root")).to_string();
        assert_eq!(rooted(&cache.from[0]), "type=local,src=/root/a");
        assert_eq!(rooted(&cache.to[0]), "type=local,dest=/b,mode=max");
        assert_eq!(rooted(&cache.to[1]), "type=registry,ref=h/p:t");
    }

    #[test]
    fn a_target_has_its_place() {
        let entry: CacheEntry = "type=registry,ref=h/cache:{distro}-{arch}".parse().unwrap();
        let filled = entry.for_target("debian_bookworm", "linux/arm64".parse().unwrap());
        assert_eq!(filled.to_string(), "type=registry,ref=h/cache:debian_bookworm-arm64");
    }
}
