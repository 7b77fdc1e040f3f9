//! A layout's tag, a name in an engine or a reference in a registry -> the [`Image`]s of its platforms.
//!
//! Each function takes the platforms that the caller wants; an empty list means all. A platform that the image does not have
//! is an error.

use std::sync::{Arc, OnceLock};

use anyhow::bail;
use oci_spec::image::Descriptor;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Image, Source};
use crate::config::file::ConfigError;
use crate::engine::{Engine, EngineImage};
use crate::layout::{ImageBlobs, LayoutImage, OtherManifest, ReadOptions};
use crate::oci::Platform;
use crate::progress::Lines;
use crate::registry::RemoteImage;
use crate::util::cancel::unless_cancelled;

pub fn in_layout(
    image: &LayoutImage,
    platforms: &[Platform],
    options: ReadOptions<'static>,
) -> anyhow::Result<Vec<Image>> {
    let all = image.platforms.iter().map(|(platform, manifest)| (*platform, manifest));
    any(
        of_blobs(&(image.shared_layout() as _), all, platforms, options)?,
        &image.others,
    )
}

/// Layers are streamed; nothing is stored. Called on a thread of the runtime.
pub fn in_registry(
    image: &RemoteImage,
    platforms: &[Platform],
    options: ReadOptions<'static>,
) -> anyhow::Result<Vec<Image>> {
    let all = image.platforms.iter();
    let all = all.map(|(platform, content)| (*platform, &content.descriptor));
    let blobs = Arc::new(image.clone()).blocking(Handle::current());
    any(
        of_blobs(&(Arc::new(blobs) as _), all, platforms, options)?,
        &image.other_manifests,
    )
}

fn of_blobs<'a>(
    blobs: &Arc<dyn ImageBlobs>,
    all: impl Iterator<Item = (Platform, &'a Descriptor)> + Clone,
    wanted: &[Platform],
    options: ReadOptions<'static>,
) -> anyhow::Result<Vec<Image>> {
    let has = |platform: &Platform| all.clone().any(|(p, _)| p == *platform);
    if let Some(missing) = wanted.iter().find(|platform| !has(platform)) {
        let all: Vec<String> = all.map(|(platform, _)| platform.to_string()).collect();
        let text = format!("the image has no {missing}; it has {}", all.join(", "));
        return Err(ConfigError::Invalid(text).into());
    }
    let chosen = all.filter(|(platform, _)| wanted.is_empty() || wanted.contains(platform));
    let image = |(platform, manifest): (_, &Descriptor)| {
        Image::of_blobs(platform, Arc::clone(blobs), manifest.clone(), options)
    };
    Ok(chosen.map(image).collect())
}

/// The image that the engine of the environment has under `name`. The engine's archive has one platform. `storage`: whether the
/// engine's storage may be read.
pub async fn in_engine(
    name: &str,
    platforms: &[Platform],
    options: ReadOptions<'static>,
    lines: Arc<dyn Lines>,
    storage: bool,
) -> anyhow::Result<Vec<Image>> {
    let engine = Engine::from_env().await?;
    let (image, platform) = find_in_engine(&engine, name).await?;
    if let Some(missing) = platforms.iter().find(|p| **p != platform) {
        return Err(ConfigError::Invalid(format!("the engine's {name} is {platform}, not {missing}")).into());
    }
    Ok(vec![Image {
        platform,
        source: Source::Engine {
            engine,
            name: name.to_string(),
            image,
            lines,
            options,
            storage,
            read_from: OnceLock::new(),
        },
        contents: Default::default(),
    }])
}

pub async fn find_in_engine(engine: &Engine, name: &str) -> anyhow::Result<(EngineImage, Platform)> {
    let image = engine.inspect_image(name).await?;
    let image = image.ok_or_else(|| ConfigError::Invalid(format!("the engine has no image {name}")))?;
    let platform = format!("{}/{}", image.os, image.architecture).parse()?;
    Ok((image, platform))
}

/// Reads the images that are not read yet, each on a thread of its own.
pub async fn read(images: Vec<Image>, cancel: &CancellationToken) -> anyhow::Result<Vec<Image>> {
    let task = |image: Image| spawn_blocking(move || image.contents().map(|_| ()).map(|()| image));
    let tasks: Vec<_> = images.into_iter().map(task).collect();
    let mut images = Vec::new();
    for task in tasks {
        images.push(unless_cancelled(cancel, task).await???);
    }
    Ok(images)
}

/// An image that has nothing to read is an error that names what it has.
fn any(images: Vec<Image>, others: &[OtherManifest]) -> anyhow::Result<Vec<Image>> {
    if images.is_empty() {
        if others.is_empty() {
            bail!("the image has no manifests");
        }
        let others: Vec<String> = others.iter().map(|o| format!("{} ({})", o.what, o.digest)).collect();
        bail!(
            "the image has no linux/amd64 or linux/arm64 manifest; it has {}",
            others.join(", ")
        );
    }
    Ok(images)
}
