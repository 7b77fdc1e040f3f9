//! Images as commands name them, `oci:DIR[:TAG]` or `docker:NAME`, read into trees and judged.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use oci_spec::image::ImageConfiguration;
use tokio::task::spawn_blocking;
use tokio_util::io::SyncIoBridge;

use super::Context;
use crate::cli::ExpectArgs;
use crate::config::file::{BuildFile, ConfigError, Distro, Family};
use crate::config::settings::find_distro;
use crate::engine::Engine;
use crate::layout::{self, LayoutImage, LayoutReference, ReadOptions, Tree};
use crate::lock;
use crate::platform::Platform;
use crate::verify::{self, Contract, Expectation, ImageUnderTest, Verdict};

#[derive(Clone, Debug)]
pub enum ImageName {
    Layout(LayoutReference),
    Engine(String),
}

impl FromStr for ImageName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            Some(("oci", rest)) if !rest.is_empty() => {
                let Ok(reference) = rest.parse();
                Ok(ImageName::Layout(reference))
            }
            Some(("docker", rest)) if !rest.is_empty() => Ok(ImageName::Engine(rest.to_string())),
            _ => Err(ConfigError::Invalid(format!(
                "{text:?} does not say where the image is: oci:DIR[:TAG] for a layout, docker:NAME for an engine"
            ))),
        }
    }
}

/// One platform's image, read.
pub struct Opened {
    pub platform: Platform,
    /// Of the manifest, where there is one.
    pub digest: Option<String>,
    pub config: ImageConfiguration,
    pub tree: Tree,
    /// Bytes of the layers as they are stored; 0 for an engine's image, which is not packed yet.
    pub compressed: u64,
    pub uncompressed: u64,
}

/// Reads the platforms asked for, or all there are, each on its own core.
pub async fn open(
    context: &Context,
    name: &ImageName,
    platforms: &[Platform],
    hash_files: bool,
) -> anyhow::Result<Vec<Opened>> {
    match name {
        ImageName::Layout(reference) => open_layout(context, reference, platforms, hash_files).await,
        ImageName::Engine(image) => open_engine(context, image, platforms, hash_files).await,
    }
}

async fn open_layout(
    context: &Context,
    reference: &LayoutReference,
    platforms: &[Platform],
    hash_files: bool,
) -> anyhow::Result<Vec<Opened>> {
    let image = Arc::new(LayoutImage::open(reference)?);
    if let Some(missing) = platforms
        .iter()
        .find(|p| !image.platforms.iter().any(|(has, _)| has == *p))
    {
        let has: Vec<String> = image.platforms.iter().map(|(p, _)| p.to_string()).collect();
        bail!("the image has no {missing}; it has {}", has.join(", "));
    }
    let wanted = image
        .platforms
        .iter()
        .filter(|(p, _)| platforms.is_empty() || platforms.contains(p))
        .cloned();
    let mut tasks = Vec::new();
    for (platform, manifest) in wanted {
        let image = Arc::clone(&image);
        tasks.push(spawn_blocking(move || {
            let options = ReadOptions {
                keep: &verify::keeps,
                hash_files,
                ..ReadOptions::default()
            };
            let read = image.read_tree(&manifest, &options)?;
            Ok::<_, layout::ReadError>(Opened {
                platform,
                digest: Some(manifest.digest().to_string()),
                compressed: read.image_manifest.layers().iter().map(|l| l.size()).sum(),
                uncompressed: read.uncompressed_size,
                config: read.config,
                tree: read.tree,
            })
        }));
    }
    let mut opened = Vec::new();
    for task in tasks {
        opened.push(context.unless_cancelled(task).await???);
    }
    if opened.is_empty() {
        bail!("the image has no linux/amd64 or linux/arm64 manifest");
    }
    Ok(opened)
}

async fn open_engine(
    context: &Context,
    name: &str,
    platforms: &[Platform],
    hash_files: bool,
) -> anyhow::Result<Vec<Opened>> {
    let engine = Engine::from_env().await?;
    let image = engine
        .inspect_image(name)
        .await?
        .ok_or_else(|| anyhow!("the engine has no image {name}"))?;
    let platform: Platform = format!("{}/{}", image.os, image.architecture).parse()?;
    if let Some(missing) = platforms.iter().find(|p| **p != platform) {
        bail!("the engine's {name} is {platform}, not {missing}");
    }
    let progress = context.terminal.line(name);
    let reader = SyncIoBridge::new(engine.export(&image.id));
    let task = spawn_blocking(move || {
        let options = ReadOptions {
            keep: &verify::keeps,
            hash_files,
            ..ReadOptions::default()
        };
        layout::read_export(reader, platform, &options, progress.as_ref())
    });
    let (config, tree) = context
        .unless_cancelled(task)
        .await??
        .with_context(|| format!("reading {name} from the engine"))?;
    Ok(vec![Opened {
        platform,
        digest: None,
        config,
        tree,
        compressed: 0,
        uncompressed: image.size,
    }])
}

/// What an image is judged by.
pub struct Judge {
    pub file: BuildFile,
    pub contract: Contract,
    distro: Option<String>,
}

impl Judge {
    pub fn new(file: BuildFile, args: &ExpectArgs) -> anyhow::Result<Self> {
        if let Some(name) = &args.distro {
            find_distro(&file, name)?;
        }
        let contract = Contract::load(args.contract.as_deref().unwrap_or(&contract_path(&file)))?;
        Ok(Judge {
            file,
            contract,
            distro: args.distro.clone(),
        })
    }

    /// Judges an image by what its own labels and files say it is, or by the distro asked for.
    pub fn verdict(&self, image: &Opened) -> anyhow::Result<Verdict> {
        let distro = match &self.distro {
            Some(name) => find_distro(&self.file, name)?,
            None => detect_distro(&self.file, &image.tree)?,
        };
        let labels = image.config.labels_of_config();
        let reference = labels.and_then(|l| l.get("org.opencontainers.image.version"));
        let lock = reference
            .and_then(|reference| lock::find(&self.file, reference, &distro.python).ok())
            .and_then(|lock| std::fs::read_to_string(lock.path).ok());
        let under_test = ImageUnderTest {
            platform: image.platform,
            tree: &image.tree,
            config: &image.config,
            digest: image.digest.clone(),
            compressed: image.compressed,
            uncompressed: image.uncompressed,
        };
        let expectation = Expectation {
            identity: &self.file.user,
            distro,
            project: &self.file.project.name,
            reference: reference.map(String::as_str),
            labels: &self.file.image.labels,
            lock: lock.as_deref(),
        };
        Ok(self.contract.check(&under_test, &expectation)?)
    }
}

pub fn contract_path(file: &BuildFile) -> PathBuf {
    file.root.join("images").join(format!("{}.toml", file.image.name))
}

/// The distro of build.toml whose release this is, by os-release(5).
fn detect_distro<'a>(file: &'a BuildFile, tree: &Tree) -> anyhow::Result<&'a Distro> {
    let text = tree
        .content("etc/os-release")
        .or_else(|| tree.content("usr/lib/os-release"));
    let text = text.map(String::from_utf8_lossy).unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_string())
    };
    let (id, codename) = (
        value("ID").unwrap_or_default(),
        value("VERSION_CODENAME").unwrap_or_default(),
    );
    let family = match id.as_str() {
        "debian" => Some(Family::Debian),
        "ubuntu" => Some(Family::Ubuntu),
        _ => None,
    };
    let known = file
        .distros
        .values()
        .find(|d| Some(d.family) == family && d.suite == codename);
    known.ok_or_else(|| {
        anyhow!("the image's os-release says {id:?} {codename:?}, which is none of build.toml's distros; name one with --distro")
    })
}

/// `dist/oci`.
pub fn layout_dir(output: &Path) -> PathBuf {
    output.join("oci")
}
