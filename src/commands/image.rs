//! Images as commands name them, `oci:DIR[:TAG]`, `docker:NAME` or `HOST/PATH:TAG`, read into trees and judged.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Context, Failure};
use crate::build::state::State;
use crate::config::file::ConfigError;
use crate::engine::Engine;
use crate::layout::{self, LayoutImage, LayoutReference, ReadImage, Tree};
use crate::oci::{ImageReference, Platform};
use crate::registry::{Access, Registries, RemoteImage, RemoteRoot};
use crate::report::text;
use crate::verify::judge::{Judge, reference_of, verdict_key};
use crate::verify::{ImageUnderTest, Passed, Verdict, Verified, read_options};

#[derive(Clone, Debug)]
pub enum ImageName {
    Layout(LayoutReference),
    Engine(String),
    Registry(ImageReference),
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
            _ => text.parse().map(ImageName::Registry).map_err(|_| {
                ConfigError::Invalid(format!(
                    "{text:?} does not say where the image is: oci:DIR[:TAG] for a layout, docker:NAME for an engine, \
                     HOST/PATH:TAG for a registry"
                ))
            }),
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

impl Opened {
    fn new(platform: Platform, digest: String, read: ReadImage) -> Self {
        Opened {
            platform,
            digest: Some(digest),
            compressed: read.image_manifest.layers().iter().map(|l| l.size()).sum(),
            uncompressed: read.uncompressed_size,
            config: read.config,
            tree: read.tree,
        }
    }
}

impl Opened {
    pub fn under_test(&self) -> ImageUnderTest<'_> {
        ImageUnderTest {
            platform: self.platform,
            tree: &self.tree,
            config: &self.config,
            digest: self.digest.clone(),
            compressed: self.compressed,
            uncompressed: self.uncompressed,
        }
    }
}

/// What images are judged by, as build.toml and the flags have it.
pub fn judge(context: &Context, distro: Option<&str>, contract: Option<&Path>) -> anyhow::Result<Judge> {
    Judge::new(context.build_file()?, distro, contract)
}

/// The verdicts on the platforms of an image.
pub fn verdicts_of(judge: &Judge, opened: &[Opened]) -> anyhow::Result<Vec<Verdict>> {
    let verdicts = opened.iter().map(|image| judge.verdict(&image.under_test()));
    verdicts.collect()
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
        ImageName::Registry(reference) => {
            let registries = context.registries(&context.build_file()?);
            let image = find_remote(context, &registries, reference).await?;
            open_remote(context, &image, platforms, hash_files).await
        }
    }
}

/// What a reference stands for in its registry: all manifests, no layers.
pub async fn find_remote(
    context: &Context,
    registries: &Registries,
    reference: &ImageReference,
) -> anyhow::Result<RemoteImage> {
    let root = find_remote_root(context, registries, reference).await?;
    Ok(context.unless_cancelled(RemoteImage::open(root)).await??)
}

pub async fn find_remote_root(
    context: &Context,
    registries: &Registries,
    reference: &ImageReference,
) -> anyhow::Result<RemoteRoot> {
    let target = reference.target().ok_or_else(|| {
        ConfigError::Invalid(format!(
            "{reference} names a repository; say which image, with :TAG or @DIGEST"
        ))
    })?;
    let repository = registries.repository(&reference.repository, Access::Pull)?;
    Ok(context
        .unless_cancelled(RemoteRoot::open(&repository, &target))
        .await??)
}

/// Reads platforms of an image in a registry, the layers streamed through.
pub async fn open_remote(
    context: &Context,
    image: &RemoteImage,
    platforms: &[Platform],
    hash_files: bool,
) -> anyhow::Result<Vec<Opened>> {
    must_have(platforms, image.platforms.iter().map(|(p, _)| *p))?;
    let progress = context.terminal.line(&image.repository.name());
    progress.step("reading the layers");
    let image = Arc::new(image.clone());
    let mut tasks = Vec::new();
    for (i, (platform, _)) in image.platforms.iter().enumerate() {
        if !platforms.is_empty() && !platforms.contains(platform) {
            continue;
        }
        let image = Arc::clone(&image);
        let handle = tokio::runtime::Handle::current();
        tasks.push(spawn_blocking(move || {
            let options = read_options(hash_files);
            let (platform, content) = &image.platforms[i];
            let read = layout::read_image(&image.blocking(handle), &content.descriptor, &options)?;
            Ok::<_, layout::ReadError>(Opened::new(*platform, content.descriptor.digest().to_string(), read))
        }));
    }
    finish(context, tasks).await
}

fn must_have(asked: &[Platform], has: impl Iterator<Item = Platform>) -> anyhow::Result<()> {
    let has: Vec<Platform> = has.collect();
    if let Some(missing) = asked.iter().find(|p| !has.contains(p)) {
        let has: Vec<String> = has.iter().map(Platform::to_string).collect();
        bail!("the image has no {missing}; it has {}", has.join(", "));
    }
    Ok(())
}

async fn finish(
    context: &Context,
    tasks: Vec<JoinHandle<Result<Opened, layout::ReadError>>>,
) -> anyhow::Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for task in tasks {
        opened.push(context.unless_cancelled(task).await???);
    }
    if opened.is_empty() {
        bail!("the image has no linux/amd64 or linux/arm64 manifest");
    }
    Ok(opened)
}

/// The verdicts on all platforms of a layout's image, for a push: what has been judged need not be judged again, and what
/// the build remembers need not be read again. All of it goes by the manifests' digests, which are those that are pushed;
/// that the blobs have theirs, the registry checks.
pub async fn judge_to_push(
    context: &Context,
    reference: &LayoutReference,
    judge: &Judge,
) -> anyhow::Result<Vec<Verdict>> {
    let image = LayoutImage::open(reference)?;
    let state = State::new(reference.dir.parent().unwrap_or(&reference.dir));
    // Without them nothing is remembered, and all is judged.
    let terms = judge
        .terms(&references(&image))
        .inspect_err(|error| tracing::debug!(%error, "cannot tell what decides the verdict"));
    let terms = terms.ok();
    let recalled = image.platforms.iter().map(|(platform, manifest)| {
        let digest = manifest.digest().to_string();
        let passed = state.recall_verdict(&verdict_key(&terms?, *platform, &digest))?;
        passed.of(*platform, digest)
    });
    if let Some(verdicts) = recalled.collect() {
        return Ok(verdicts);
    }
    judge.contract.check_form()?;
    let verdicts = judge_layout(context, reference, &image, &state, judge).await?;
    if let Some(terms) = terms {
        let passed = verdicts.iter().filter_map(|verdict| {
            let key = verdict_key(&terms, verdict.platform(), verdict.digest()?);
            Some((key, Passed::new(verdict)?))
        });
        if let Err(error) = state.remember_verdicts(passed.collect()) {
            tracing::debug!(%error, "cannot remember the verdicts");
        }
    }
    Ok(verdicts)
}

/// What an image's platforms say that they were built from.
fn references(image: &LayoutImage) -> BTreeSet<String> {
    let configs = image.platforms.iter().filter_map(|(_, manifest)| {
        let manifest: ImageManifest = image.layout().read_json(manifest).ok()?;
        image.layout().read_json::<ImageConfiguration>(manifest.config()).ok()
    });
    configs
        .filter_map(|config| reference_of(&config).map(str::to_string))
        .collect()
}

async fn judge_layout(
    context: &Context,
    reference: &LayoutReference,
    image: &LayoutImage,
    state: &State,
    judge: &Judge,
) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for (platform, manifest) in &image.platforms {
        match recall(image, state, *platform, manifest) {
            // One tree at a time: they are large.
            Some(opened) => verdicts.push(judge.verdict(&opened.under_test())?),
            None => {
                let progress = context.terminal.line(&reference.to_string());
                progress.step("reading the layers");
                return verdicts_of(judge, &open_layout(context, reference, &[], false).await?);
            }
        }
    }
    Ok(verdicts)
}

/// One platform of a layout's image, as the build remembers it or read from its layers.
pub async fn recall_or_read(
    context: &Context,
    reference: &LayoutReference,
    platform: Platform,
) -> anyhow::Result<Opened> {
    let image = LayoutImage::open(reference)?;
    let state = State::new(reference.dir.parent().unwrap_or(&reference.dir));
    let manifest = image.platforms.iter().find(|(p, _)| *p == platform);
    if let Some(opened) = manifest.and_then(|(_, manifest)| recall(&image, &state, platform, manifest)) {
        return Ok(opened);
    }
    let read = open_layout(context, reference, &[platform], false).await?;
    read.into_iter()
        .next()
        .ok_or_else(|| anyhow!("{reference} has no {platform}"))
}

fn recall(image: &LayoutImage, state: &State, platform: Platform, manifest: &Descriptor) -> Option<Opened> {
    let image_manifest: ImageManifest = image.layout().read_json(manifest).ok()?;
    let config = image.layout().read_json(image_manifest.config()).ok()?;
    let (remembered, tree) = state.recall_tree(manifest.digest().as_ref())?;
    Some(Opened {
        platform,
        digest: Some(manifest.digest().to_string()),
        config,
        tree,
        compressed: image_manifest.layers().iter().map(|l| l.size()).sum(),
        uncompressed: remembered.uncompressed_bytes,
    })
}

async fn open_layout(
    context: &Context,
    reference: &LayoutReference,
    platforms: &[Platform],
    hash_files: bool,
) -> anyhow::Result<Vec<Opened>> {
    let image = Arc::new(LayoutImage::open(reference)?);
    must_have(platforms, image.platforms.iter().map(|(p, _)| *p))?;
    let wanted = image
        .platforms
        .iter()
        .filter(|(p, _)| platforms.is_empty() || platforms.contains(p))
        .cloned();
    let mut tasks = Vec::new();
    for (platform, manifest) in wanted {
        let image = Arc::clone(&image);
        tasks.push(spawn_blocking(move || {
            let options = read_options(hash_files);
            let read = image.read_tree(&manifest, &options)?;
            Ok::<_, layout::ReadError>(Opened::new(platform, manifest.digest().to_string(), read))
        }));
    }
    finish(context, tasks).await
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
    let uncompressed = image.size;
    let task = spawn_blocking(move || {
        let options = read_options(hash_files);
        engine.read_image(&image, |archive| {
            layout::read_export(archive, platform, &options, progress.as_ref())
        })
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
        uncompressed,
    }])
}

/// The index of a published image and the manifests that it names.
pub fn manifests(image: &RemoteImage) -> Vec<Descriptor> {
    let root = &image.root.descriptor;
    let named = image.platforms.iter().map(|(_, content)| content).chain(&image.others);
    let named = named
        .map(|content| &content.descriptor)
        .filter(|d| d.digest() != root.digest());
    std::iter::once(root).chain(named).cloned().collect()
}

/// The value with the verdicts on its platforms. What is not admitted has been told on stdout.
pub fn admit<T>(context: &Context, name: &str, value: T, verdicts: Vec<Verdict>) -> Result<Verified<T>, Failure> {
    Verified::admit(value, verdicts).map_err(|refused| {
        let result = json!({ "image": name, "passed": false, "platforms": refused.verdicts });
        let told = context.print(&result, || {
            let verdicts: Vec<String> = refused.verdicts.iter().map(text::verdict).collect();
            verdicts.join("\n") + "\nnot published: it breaks its contract\n"
        });
        told.err().unwrap_or(Failure::Contract)
    })
}
