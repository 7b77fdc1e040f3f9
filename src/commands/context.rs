//! Shared by all commands: flags, terminal, cancellation, and reading images.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::GlobalArgs;
use crate::config::file::{BuildFile, ConfigError};
use crate::image::{Image, ImageName, open};
use crate::layout::{LayoutImage, OtherManifest, Wait};
use crate::oci::{ImageReference, Platform};
use crate::plan::{output, settings};
use crate::registry::{Overrides, Registries, RemoteImage, RemoteRoot};
use crate::report::terminal::{Notes, Terminal};
use crate::util::cancel::{Interrupted, unless_cancelled};
use crate::verify::judge::Judge;
use crate::verify::read_options;

/// The context of a command. Clones share the terminal and the cancellation.
#[derive(Clone)]
pub struct Context {
    pub global: GlobalArgs,
    pub terminal: Terminal,
    /// Cancelled by Ctrl-C and SIGTERM: stages stop at the next safe point and clean up.
    pub cancel: CancellationToken,
    /// The result is on stdout.
    pub(super) printed: Arc<AtomicBool>,
}

impl Context {
    pub fn new(global: GlobalArgs, cancel: CancellationToken) -> Self {
        Self {
            terminal: Terminal::new(global.progress),
            cancel,
            global,
            printed: Arc::default(),
        }
    }

    /// build.toml, with the flags that replace its values for every command.
    pub fn build_file(&self) -> Result<BuildFile, ConfigError> {
        let mut file = settings::load(self.global.config.as_deref())?;
        file.engine.read_storage &= !self.global.no_engine_storage;
        Ok(file)
    }

    /// Whether images may be read from an engine's storage; without build.toml, only the flag says so.
    fn reads_engine_storage(&self) -> bool {
        let file = self.build_file();
        file.map_or(!self.global.no_engine_storage, |file| file.engine.read_storage)
    }

    /// The registries with the settings of build.toml and the flags.
    pub fn registries(&self, file: &BuildFile) -> Registries {
        let flags = &self.global.registries;
        // Relative to the current directory, not to build.toml.
        let ca = flags.registry_ca.as_ref();
        let ca = ca.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let plain_http = flags.plain_http;
        let notes = Arc::new(Notes(self.terminal.clone()));
        Registries::new(&file.registries, &file.root, Overrides { plain_http, ca }, notes)
    }

    /// Waits for `work` until the user stops the run.
    pub async fn unless_cancelled<F: Future>(&self, work: F) -> Result<F::Output, Interrupted> {
        unless_cancelled(&self.cancel, work).await
    }

    /// How to wait for a layout that another run uses.
    pub fn wait(&self) -> Wait<'_> {
        Wait {
            lines: &self.terminal,
            cancel: &self.cancel,
            limit: self.global.lock_timeout.map(Duration::from_secs),
        }
    }

    /// The output directory: of the flag, else next to build.toml.
    pub fn output(&self, given: Option<&Path>, file: &BuildFile) -> PathBuf {
        output::directory(given, &file.root)
    }

    /// The judge for build.toml and the flags.
    pub fn judge(&self, distro: Option<&str>, contract: Option<&Path>) -> anyhow::Result<Judge> {
        Judge::new(self.build_file()?, distro, contract)
    }

    /// Reads the chosen platforms of an image with their files, all platforms if none is chosen; and lists the manifests of
    /// the image that are not for a supported platform.
    pub async fn read(
        &self,
        name: &ImageName,
        platforms: &[Platform],
        hash_files: bool,
    ) -> anyhow::Result<(Vec<Image>, Vec<OtherManifest>)> {
        let options = read_options(hash_files);
        let (images, others) = match name {
            ImageName::Layout(reference) => {
                let image = LayoutImage::open_with(reference, &self.wait())?;
                (
                    open::in_layout(&image, platforms, options)?,
                    image.others_than(platforms),
                )
            }
            ImageName::Engine(name) => {
                let lines = Arc::new(self.terminal.clone());
                let storage = self.reads_engine_storage();
                (
                    open::in_engine(name, platforms, options, lines, storage).await?,
                    Vec::new(),
                )
            }
            ImageName::Registry(reference) => {
                let image = self.open(&self.registries(&self.build_file()?), reference).await?;
                let images = self.read_remote(&image, platforms, hash_files).await?;
                return Ok((images, image.others_than(platforms)));
            }
        };
        Ok((open::read(images, &self.cancel).await?, others))
    }

    /// [`read`](Self::read) for an image that was found in a registry.
    pub async fn read_remote(
        &self,
        image: &RemoteImage,
        platforms: &[Platform],
        hash_files: bool,
    ) -> anyhow::Result<Vec<Image>> {
        let images = open::in_registry(image, platforms, read_options(hash_files))?;
        let progress = self.terminal.line(&image.repository.name());
        progress.step("reading the layers");
        open::read(images, &self.cancel).await
    }

    /// Resolves a reference in its registry.
    pub async fn find(&self, registries: &Registries, reference: &ImageReference) -> anyhow::Result<RemoteRoot> {
        self.unless_cancelled(RemoteRoot::find(registries, reference)).await?
    }

    /// Reads the image of a reference with all its manifests.
    pub async fn open(&self, registries: &Registries, reference: &ImageReference) -> anyhow::Result<RemoteImage> {
        let root = self.find(registries, reference).await?;
        Ok(self.unless_cancelled(RemoteImage::open(root)).await??)
    }
}
