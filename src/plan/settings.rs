//! Merges flags, environment (both read by clap) and `build.toml` into one typed settings value. Flags take precedence,
//! then the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::runtime_binary::Prebuilt;
use super::source;
use crate::config::builders::{self, BuilderEntry};
use crate::config::cache::{Cache, CacheEntry, CacheType};
use crate::config::file::{BuildFile, ConfigError, Distro};
use crate::config::{BootstrapMode, RuntimeBinary};
use crate::oci::{ImageReference, Platform};

/// The request, as given by flags and environment. An empty list or `None` leaves the choice to build.toml.
#[derive(Clone, Debug, Default)]
pub struct TargetRequest {
    /// Distro names in build.toml, or `all`.
    pub distros: Vec<String>,
    pub platforms: Vec<Platform>,
    pub project_ref: Option<String>,
    pub registry: Option<String>,
    pub image_prefix: Option<String>,
    pub tag: Option<String>,
    /// The base image instead of the distro's own.
    pub base: Option<String>,
    pub bootstrap: BootstrapMode,
    pub runtime_binaries: Vec<RuntimeBinary>,
    pub locked: bool,
    /// Builder names in build.toml.
    pub builders: Vec<String>,
    pub cache: Cache,
}

/// The resolved request. Distros keep the order of the request.
#[derive(Debug)]
pub struct Settings {
    pub file: BuildFile,
    pub distros: Vec<String>,
    pub platforms: Vec<Platform>,
    /// The ref from the command line or the environment.
    pub project_ref: Option<String>,
    pub registry: String,
    pub prefix: String,
    pub tag: Option<String>,
    pub base: Option<String>,
    pub bootstrap: BootstrapMode,
    pub locked: bool,
    pub source_date_epoch: Option<i64>,
    /// Compiled obgp-runtime programs by platform.
    pub prebuilt: BTreeMap<Platform, Prebuilt>,
    /// Empty means the engine of the environment.
    pub builders: Vec<BuilderEntry>,
    pub cache: Cache,
}

impl Settings {
    pub fn new(file: BuildFile, request: &TargetRequest) -> Result<Self, ConfigError> {
        let distros = pick_distros(&file, &request.distros)?;
        if request.tag.is_some() && distros.len() > 1 {
            return Err(ConfigError::Invalid(
                "--tag names one image, but several distros are selected\nhelp: build them one by one".into(),
            ));
        }
        if request.base.is_some() && distros.len() > 1 {
            return Err(ConfigError::Invalid(
                "--base is for one distro, but several are selected".into(),
            ));
        }
        if request.base.is_some() && request.bootstrap == BootstrapMode::Always {
            return Err(ConfigError::Invalid(
                "--base and --bootstrap always exclude each other".into(),
            ));
        }
        let project_ref = request.project_ref.clone().filter(|r| !r.is_empty());
        for name in &distros {
            let distro = find_distro(&file, name)?;
            source::check_python(&file, &reference(&file, distro, project_ref.as_deref()), name, distro)?;
        }
        let platforms = pick_platforms(&file, &request.platforms);
        let cache = pick_cache(&file, &request.cache);
        check_cache(&cache, &distros, &platforms)?;
        let builders = builders::pick(&file.builders, &request.builders)?;
        builders::check_files(&builders, &file.root)?;
        let non_empty = |v: &Option<String>, default: &str| match v.as_deref() {
            Some(s) if !s.is_empty() => s.to_string(),
            _ => default.to_string(),
        };
        let settings = Settings {
            prebuilt: load_prebuilt(&request.runtime_binaries, &platforms)?,
            platforms,
            project_ref,
            registry: non_empty(&request.registry, &file.image.registry)
                .trim_end_matches('/')
                .to_string(),
            prefix: non_empty(&request.image_prefix, &file.image.prefix)
                .trim_matches('/')
                .to_string(),
            tag: request.tag.clone(),
            base: request.base.clone(),
            bootstrap: request.bootstrap,
            locked: request.locked,
            source_date_epoch: epoch_from_environment()?.or(file.image.source_date_epoch),
            builders,
            cache,
            distros,
            file,
        };
        for name in &settings.distros {
            let reference = settings.reference_for(settings.distro(name)?);
            settings.image_name(name, &reference)?;
        }
        Ok(settings)
    }

    pub fn distro(&self, name: &str) -> Result<&Distro, ConfigError> {
        find_distro(&self.file, name)
    }

    /// The ref of the agent for a distro: from the request, else the distro's, else the project's.
    pub fn reference_for(&self, distro: &Distro) -> String {
        reference(&self.file, distro, self.project_ref.as_deref())
    }

    /// `REGISTRY/IMAGE_PREFIX/ovn-bgp-agent:REF-DISTRO`; a `/` of the ref becomes `-`.
    pub fn image_name(&self, distro: &str, reference: &str) -> Result<ImageReference, ConfigError> {
        let tag = match &self.tag {
            Some(tag) => tag.clone(),
            None => format!("{}-{distro}", reference.replace('/', "-")),
        };
        let parts = [
            self.registry.as_str(),
            self.prefix.as_str(),
            self.file.image.name.as_str(),
        ];
        let repository = parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        let name = format!("{repository}:{tag}");
        ImageReference::familiar(&name).map_err(|e| {
            ConfigError::Invalid(format!(
                "{name:?} is not an image name: {e}\nhelp: set the tag with --tag, the rest with --registry and --image-prefix"
            ))
        })
    }
}

fn reference(file: &BuildFile, distro: &Distro, asked: Option<&str>) -> String {
    asked
        .or(distro.reference.as_deref())
        .unwrap_or(&file.project.reference)
        .to_string()
}

pub fn find_distro<'a>(file: &'a BuildFile, name: &str) -> Result<&'a Distro, ConfigError> {
    file.distros.get(name).ok_or_else(|| {
        let known: Vec<&str> = file.distros.keys().map(String::as_str).collect();
        ConfigError::Invalid(format!("no distro {name:?} in build.toml; it has {}", known.join(", ")))
    })
}

pub fn pick_distros(file: &BuildFile, asked: &[String]) -> Result<Vec<String>, ConfigError> {
    let asked: Vec<&String> = asked.iter().filter(|d| !d.is_empty()).collect();
    if asked.iter().any(|d| *d == "all") {
        let others = asked.iter().filter(|d| **d != "all");
        others
            .map(|name| find_distro(file, name))
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(file.distros.keys().cloned().collect());
    }
    let names = if asked.is_empty() {
        file.image.distros.iter().collect()
    } else {
        asked
    };
    let mut picked: Vec<String> = Vec::new();
    for name in names {
        find_distro(file, name)?;
        if !picked.contains(name) {
            picked.push(name.clone());
        }
    }
    Ok(picked)
}

pub fn pick_platforms(file: &BuildFile, asked: &[Platform]) -> Vec<Platform> {
    let mut picked = if asked.is_empty() {
        file.image.platforms.clone()
    } else {
        asked.to_vec()
    };
    picked.sort();
    picked.dedup();
    picked
}

fn pick_cache(file: &BuildFile, request: &Cache) -> Cache {
    // Paths in build.toml are relative to build.toml, those from the command line to the current directory.
    let here = std::path::absolute(".").unwrap_or_default();
    let asked = |flag: &[CacheEntry], entries: &[CacheEntry]| -> Vec<CacheEntry> {
        match flag {
            [] => entries.iter().map(|entry| entry.rooted(&file.root)).collect(),
            given => given.iter().map(|entry| entry.rooted(&here)).collect(),
        }
    };
    Cache {
        from: asked(&request.from, &file.cache.from),
        to: asked(&request.to, &file.cache.to),
    }
}

/// Each target is its own solve: two solves that write their cache to one place would overwrite each other's.
fn check_cache(cache: &Cache, distros: &[String], platforms: &[Platform]) -> Result<(), ConfigError> {
    cache.check().map_err(ConfigError::Invalid)?;
    let mut places = BTreeMap::new();
    for (distro, platform) in distros.iter().flat_map(|d| platforms.iter().map(move |p| (d, *p))) {
        let target = format!("{distro} {platform}");
        let written = cache.for_target(distro, platform).to;
        for entry in written.iter().filter(|e| e.kind != CacheType::Inline) {
            if let Some(other) = places.insert(entry.to_string(), target.clone()) {
                return Err(ConfigError::Invalid(format!(
                    "cache-to {entry}: {other} and {target} would overwrite each other's cache\n\
                     help: use {{distro}} and {{arch}} in the name"
                )));
            }
        }
    }
    Ok(())
}

fn load_prebuilt(
    binaries: &[RuntimeBinary],
    platforms: &[Platform],
) -> Result<BTreeMap<Platform, Prebuilt>, ConfigError> {
    let mut all = BTreeMap::new();
    for binary in binaries {
        if !platforms.contains(&binary.platform) {
            return Err(ConfigError::Invalid(format!(
                "--runtime-binary {}={} is for a platform that is not built\nhelp: add --platform {}",
                binary.platform,
                binary.path.display(),
                binary.platform
            )));
        }
        if all.insert(binary.platform, Prebuilt::load(binary)?).is_some() {
            return Err(ConfigError::Invalid(format!(
                "--runtime-binary is given twice for {}",
                binary.platform
            )));
        }
    }
    Ok(all)
}

/// Loads the given file, or the nearest `build.toml` in this directory or above.
pub fn load(config: Option<&Path>) -> Result<BuildFile, ConfigError> {
    if let Some(path) = config {
        return BuildFile::load(path);
    }
    let here = std::env::current_dir().map_err(|source| ConfigError::Read {
        path: PathBuf::from("."),
        source,
    })?;
    let found = here
        .ancestors()
        .map(|dir| dir.join("build.toml"))
        .find(|path| path.is_file());
    match found {
        Some(path) => BuildFile::load(&path),
        None => Err(ConfigError::NotFound { dir: here }),
    }
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>
pub fn epoch_from_environment() -> Result<Option<i64>, ConfigError> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(epoch) if epoch >= 0 => Ok(Some(epoch)),
            _ => Err(ConfigError::Invalid(format!(
                "SOURCE_DATE_EPOCH={text:?} is not a number of seconds"
            ))),
        },
        _ => Ok(None),
    }
}

/// The upload time limit of a lock: `SOURCE_DATE_EPOCH`, or now. The same time gives the same lock.
pub fn lock_moment() -> Result<Timestamp, ConfigError> {
    // Whole seconds, as in the lock's header.
    let seconds = epoch_from_environment()?.unwrap_or_else(|| Timestamp::now().as_second());
    Timestamp::from_second(seconds)
        .map_err(|e| ConfigError::Invalid(format!("SOURCE_DATE_EPOCH={seconds} is out of range: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(request: TargetRequest) -> Result<Settings, ConfigError> {
        let file = BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml"))?;
        Settings::new(file, &request)
    }

    #[test]
    fn the_default_name_is_the_old_build_scripts() {
        let s = settings(TargetRequest {
            registry: Some("registry.example:5000".into()),
            image_prefix: Some("loci".into()),
            project_ref: Some("stable/2026.1".into()),
            ..Default::default()
        })
        .unwrap();
        let distro = s.distro("ubuntu_noble").unwrap();
        let name = s.image_name("ubuntu_noble", &s.reference_for(distro)).unwrap();
        assert_eq!(
            name.to_string(),
            "registry.example:5000/loci/ovn-bgp-agent:stable-2026.1-ubuntu_noble"
        );
    }

    #[test]
    fn all_means_every_distro_and_an_unknown_one_is_refused_with_the_known() {
        let all = settings(TargetRequest {
            distros: vec!["all".into()],
            ..Default::default()
        })
        .unwrap();
        assert_eq!(
            all.distros,
            ["debian_bookworm", "debian_trixie", "ubuntu_jammy", "ubuntu_noble"]
        );
        let error = settings(TargetRequest {
            distros: vec!["fedora".into()],
            ..Default::default()
        })
        .unwrap_err();
        assert!(error.to_string().contains("ubuntu_noble"), "{error}");
    }

    #[test]
    fn jammy_has_a_ref_of_its_own_unless_asked_otherwise() {
        let s = settings(TargetRequest::default()).unwrap();
        assert_eq!(s.reference_for(s.distro("ubuntu_jammy").unwrap()), "6.0.0");
        assert_eq!(s.reference_for(s.distro("ubuntu_noble").unwrap()), "7.0.0");
    }

    #[test]
    fn one_tag_for_two_images_is_refused() {
        let request = TargetRequest {
            distros: vec!["ubuntu_noble".into(), "ubuntu_jammy".into()],
            tag: Some("x".into()),
            ..Default::default()
        };
        assert!(settings(request).is_err());
    }
}
