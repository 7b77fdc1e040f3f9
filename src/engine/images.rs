//! Images in the engine's store: inspect, load, pull, export, tag and remove.

use std::collections::{BTreeMap, HashMap};
use std::io;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{ApiVersion, Engine, EngineError, ImageStore};
use crate::oci::Platform;
use crate::oci::docker_config::{self, Credentials};
use crate::progress::Progress;

/// The first API version whose `GET /images/NAME/json` accepts a platform.
const INSPECT_PLATFORM_API: ApiVersion = ApiVersion { major: 1, minor: 49 };

/// The engine's description of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineImage {
    /// `sha256:…`: the digest of the config in the classic store, of the manifest or index in containerd's.
    pub id: String,
    pub repo_tags: Vec<String>,
    /// `NAME@sha256:…`, for images that came from a registry.
    pub repo_digests: Vec<String>,
    pub os: String,
    pub architecture: String,
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<String>,
    /// Size in the store, in bytes.
    pub size: u64,
    /// RFC 3339.
    pub created: Option<String>,
    /// The time of its last tag in this engine.
    pub tagged: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
}

impl EngineImage {
    pub fn is_for(&self, platform: Platform) -> bool {
        self.os == "linux" && self.architecture == platform.architecture().name()
    }
}

impl From<ImageInspect> for EngineImage {
    fn from(found: ImageInspect) -> Self {
        Self {
            id: found.id.unwrap_or_default(),
            repo_tags: found.repo_tags.unwrap_or_default(),
            repo_digests: found.repo_digests.unwrap_or_default(),
            os: found.os.unwrap_or_default(),
            architecture: found.architecture.unwrap_or_default(),
            diff_ids: found.root_fs.and_then(|fs| fs.layers).unwrap_or_default(),
            size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            created: found.created.map(|date| date.to_string()),
            tagged: found
                .metadata
                .and_then(|metadata| metadata.last_tag_time)
                .and_then(|date| date.parse().ok()),
            labels: found
                .config
                .and_then(|config| config.labels)
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    }
}

impl Engine {
    /// `None` if the store has no image with this name or ID. For an index, which the containerd store keeps under one
    /// name, the result describes the engine's own platform; see [`Self::inspect_image_for`].
    pub async fn inspect_image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        match self.docker().inspect_image(name).await {
            Ok(found) => Ok(Some(found.into())),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.api_error(format!("inspecting image {name}"), e)),
        }
    }

    /// The image for `platform`; `None` if the store has no such image under this name.
    pub async fn inspect_image_for(&self, name: &str, platform: Platform) -> Result<Option<EngineImage>, EngineError> {
        let info = self.info();
        let Some(mut found) = self.inspect_image(name).await? else {
            return Ok(None);
        };
        if info.store == ImageStore::Containerd && info.api_version >= INSPECT_PLATFORM_API && !found.is_for(platform) {
            let wanted = serde_json::json!({"os": "linux", "architecture": platform.architecture().name()}).to_string();
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("platform", &wanted)
                .finish();
            let path = format!("/images/{name}/json?{query}");
            let doing = format!("inspecting image {name} for {platform}");
            match self.get_json::<ImageInspect>(&path, &doing).await? {
                // Its ID is the digest of a manifest inside the index, which the store does not accept as a name.
                Some(inside) => {
                    found = EngineImage {
                        id: found.id,
                        ..inside.into()
                    }
                }
                None => return Ok(None),
            }
        }
        Ok(Some(found).filter(|image| image.is_for(platform)))
    }

    /// Loads a `docker save` or OCI archive. Returns the names and IDs that the engine reports.
    pub async fn load<S>(&self, archive: S) -> Result<Vec<String>, EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut events = self.docker().import_image_stream(options, archive, None);
        let mut loaded = Vec::new();
        while let Some(event) = events.next().await {
            let event = event.map_err(|e| self.api_error("loading an image archive", e))?;
            for line in event.stream.iter().flat_map(|text| text.lines()) {
                match line
                    .strip_prefix("Loaded image: ")
                    .or(line.strip_prefix("Loaded image ID: "))
                {
                    Some(name) => loaded.push(name.trim().to_string()),
                    None => tracing::debug!(line, "the engine, loading"),
                }
            }
        }
        Ok(loaded)
    }

    /// The digest of `reference` in its registry, resolved by the engine with its own configuration.
    pub async fn registry_digest(&self, reference: &str) -> Result<String, EngineError> {
        let login = login_for(reference).await;
        let found = self.docker().inspect_registry_image(reference, login).await;
        let found = found.map_err(|e| self.api_error(format!("querying the registry for {reference}"), e))?;
        Ok(found.descriptor.digest.unwrap_or_default())
    }

    /// The tags in the store that match `pattern` (with `*`).
    pub async fn tags_like(&self, pattern: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("reference", vec![pattern])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let found = self.docker().list_images(Some(options)).await;
        let found = found.map_err(|e| self.api_error(format!("listing the images {pattern}"), e))?;
        Ok(found.into_iter().flat_map(|image| image.repo_tags).collect())
    }

    /// Pulls `reference`, a tag or digest, for `platform`, with docker's credentials for its registry, and tags the
    /// image `name`. Afterwards the reference points to what it pointed to before: the classic store moves it to the
    /// platform pulled last, and the user may need it for another platform. For the same reason pulls run one at a
    /// time.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Platform,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<EngineImage, EngineError> {
        let _alone = self.inner.pulls.lock().await;
        let before = self.inspect_image(reference).await?;
        match self.pull_to_reference(reference, platform, progress).await {
            // A concurrent run removed the reference before the engine's last look at it.
            Err(EngineError::Api { reason, .. }) if reason.contains("No such image") => {}
            done => done?,
        }
        // A single manifest is pulled for any platform.
        let mut pulled = self.inspect_image_for(reference, platform).await?;
        match &pulled {
            Some(image) => self.tag(&image.id, name).await?,
            // A concurrent run pulled the same reference and removed it.
            None => pulled = self.inspect_image_for(name, platform).await?,
        }
        match before {
            Some(before) if Some(&before.id) == pulled.as_ref().map(|image| &image.id) => {}
            // A digest cannot be set as a tag. An image that is present is not downloaded again.
            Some(before) if reference.contains('@') => {
                if let Ok(platform) = format!("{}/{}", before.os, before.architecture).parse() {
                    self.pull_to_reference(reference, platform, progress).await?;
                }
            }
            Some(before) => self.tag(&before.id, reference).await?,
            None => {
                self.remove_image(reference).await?;
            }
        }
        pulled.ok_or_else(|| {
            let lacking = format!("the registry has no image of this name for {platform}");
            self.api_error(format!("pulling {reference}"), io::Error::other(lacking).into())
        })
    }

    async fn pull_to_reference(
        &self,
        reference: &str,
        platform: Platform,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        progress.step(&format!("pulling {reference} for {platform}"));
        let login = login_for(reference).await;
        let options = CreateImageOptionsBuilder::default()
            .from_image(reference)
            .platform(&platform.to_string())
            .build();
        let doing = || format!("pulling {reference} for {platform}");
        let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut events = self.docker().create_image(Some(options), None, login);
        while let Some(event) = events.next().await {
            let event = event.map_err(|e| self.api_error(doing(), e))?;
            let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            if let (Some(id), Some(detail), Some("Downloading")) =
                (event.id, event.progress_detail, event.status.as_deref())
            {
                layers.insert(id, (bytes(detail.current), bytes(detail.total)));
                let (done, total) = layers
                    .values()
                    .fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
                progress.bytes(done, Some(total).filter(|total| *total > 0));
            }
        }
        Ok(())
    }

    /// The image as an archive: the legacy layout before engine 25, later an OCI layout with `manifest.json`. A name
    /// keeps its tag in the archive, an ID does not.
    pub fn export(&self, image: &str) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let engine = self.clone();
        let image = image.to_string();
        let docker = self.docker().clone();
        async_chunks(docker, image.clone())
            .map_err(move |e| io::Error::other(engine.api_error(format!("exporting {image}"), e)))
    }

    pub async fn tag(&self, image: &str, name: &str) -> Result<(), EngineError> {
        let (repo, tag) = split_tag(name);
        let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.docker()
            .tag_image(image, Some(options))
            .await
            .map_err(|e| self.api_error(format!("tagging {image} as {name}"), e))
    }

    /// Removes a name, and with its last name the image. Returns whether the name existed.
    pub async fn remove_image(&self, name: &str) -> Result<bool, EngineError> {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        match self.docker().remove_image(name, Some(options), None).await {
            Ok(_) => Ok(true),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(e) => Err(self.api_error(format!("removing image {name}"), e)),
        }
    }
}

/// Docker's credentials for the reference's registry.
async fn login_for(reference: &str) -> Option<DockerCredentials> {
    let (host, path) = docker_config::registry_and_path(reference);
    let login = docker_config::for_repository(host, path).await.credentials?;
    let none = DockerCredentials::default();
    Some(match login {
        Credentials::Password { username, password } => DockerCredentials {
            username: Some(username),
            password: Some(password),
            ..none
        },
        Credentials::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token),
            ..none
        },
        Credentials::RegistryToken(token) => DockerCredentials {
            registrytoken: Some(token),
            ..none
        },
    })
}

/// Splits `NAME:TAG`; without a tag, docker's default is `latest`.
fn split_tag(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        // Otherwise the colon belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// Like bollard's stream, which borrows the name; this one owns it.
fn async_chunks(
    docker: bollard::Docker,
    image: String,
) -> impl Stream<Item = Result<Bytes, bollard::errors::Error>> + Send {
    futures_util::stream::once(async move { docker.export_image(&image).boxed() }).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split_tag("registry:5000/a/b"), ("registry:5000/a/b", "latest"));
        assert_eq!(split_tag("registry:5000/a/b:c"), ("registry:5000/a/b", "c"));
    }
}
