//! Faults between the tool and a registry: the image arrives complete, or the tag stays unchanged.

mod responses;
mod tags;
mod uploads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use obgp_build::progress::{Progress, Silent};
use obgp_build::publish::{Destination, PublishError, Published, publish};
use obgp_build::registry::{
    Access, Overrides, Patience, Registries, RegistryError, RemoteImage, RemoteRoot, Repository,
};
use oci_spec::image::Descriptor;
use tokio_util::sync::CancellationToken;

use crate::support::distribution::Distribution;
use crate::support::faults::FaultyProxy;
use crate::support::published::Project;

/// Records the notes about retries.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }
}

struct Lab {
    project: Project,
    registry: Distribution,
    proxy: FaultyProxy,
    notes: Arc<Notes>,
}

impl Lab {
    async fn new() -> Self {
        Self::with("").await
    }

    /// A lab with these `[[registries]]`.
    async fn with(registries: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Distribution::start();
        Self {
            project: Project::new(registries),
            proxy: FaultyProxy::start(registry.address()).await,
            registry,
            notes: Arc::default(),
        }
    }

    fn registries(&self) -> Registries {
        let patience = Patience {
            tries: 6,
            first: Duration::from_millis(50),
            longest: Duration::from_secs(1),
        };
        let file = self.project.file();
        Registries::new(&file.registries, &file.root, Overrides::default(), self.notes.clone()).with_patience(patience)
    }

    fn destination(&self, host: &str, tag: &str) -> Destination {
        Destination::new(&format!("{host}/team/agent:{tag}").parse().unwrap(), None).unwrap()
    }

    /// Pushes the layout's image `tag` through the proxy under the tag `to`.
    async fn push(&self, tag: &str, to: &str) -> Result<Published, PublishError> {
        self.push_to(tag, &[self.destination(&self.proxy.host(), to)]).await
    }

    async fn push_to(&self, tag: &str, to: &[Destination]) -> Result<Published, PublishError> {
        let (image, index) = self.project.verified(tag);
        let cancel = CancellationToken::new();
        publish(image.layout(), &index, to, &[], &self.registries(), &Silent, &cancel).await
    }

    /// Empties the registry's link files, and returns how many there are.
    fn empty_links(&self) -> usize {
        let mut emptied = 0;
        let mut directories = vec![self.registry.data()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.ends_with("link") && !path.components().any(|part| part.as_os_str() == "index") {
                    std::fs::write(path, "").unwrap();
                    emptied += 1;
                }
            }
        }
        emptied
    }

    /// Reads the whole image without the proxy, and returns its digest, or `None` if the tag is missing.
    async fn complete(&self, tag: &str) -> Option<String> {
        let name = self.destination(&self.registry.host(), tag).repository;
        read_image(&self.registries(), &name, tag).await
    }
}

/// Reads every blob of an image and checks its digest.
async fn read_image(registries: &Registries, name: &obgp_build::oci::RepositoryName, tag: &str) -> Option<String> {
    let repository = registries.repository(name, Access::Pull).unwrap();
    repository.tag_digest(tag).await.unwrap()?;
    let image = RemoteImage::open(RemoteRoot::open(&repository, tag).await.unwrap())
        .await
        .unwrap();
    assert_eq!(image.platforms.len(), 2);
    for blob in image.blobs().unwrap() {
        read(&repository, &blob).await.unwrap();
    }
    Some(image.root.descriptor.digest().to_string())
}

/// Downloads a blob, checks its digest, and returns its size.
async fn read(repository: &Repository, blob: &Descriptor) -> Result<u64, RegistryError> {
    let pieces = repository.download(blob, 0);
    pieces
        .try_fold(0, async |sum, piece| Ok(sum + piece.len() as u64))
        .await
}
