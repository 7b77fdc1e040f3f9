//! Runs Debian's docker-registry 2.8 on a free loopback port, with a minimal client. It has no referrers API, so the
//! client maintains the fallback tag of distribution-spec 1.1.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use obgp_build::oci::{Artifact, Content, Place};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::support::debian;

pub struct Distribution {
    process: Child,
    _storage: tempfile::TempDir,
    pub host: String,
    client: Client,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An index with the manifests of two platforms.
pub struct TestImage {
    pub repository: String,
    pub index: Descriptor,
    pub platforms: Vec<Descriptor>,
}

impl TestImage {
    /// Iterates over the index and the manifest of each platform.
    pub fn all(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.index).chain(&self.platforms)
    }

    pub fn reference(&self, subject: &Descriptor) -> String {
        format!("{}@{}", self.repository, subject.digest())
    }
}

pub fn content(media_type: &str, bytes: impl Into<Bytes>) -> Content {
    Content::new(MediaType::from(media_type), bytes)
}

impl Distribution {
    pub fn start() -> Option<Self> {
        let program = debian::package("trixie", "docker-registry")?.join("usr/bin/docker-registry");
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yml");
        let text = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": storage.path().join("data")}},
            "http": {"addr": "127.0.0.1:0", "secret": "constant"},
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string()).unwrap();
        let mut process = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let host = lines
            .find_map(|line| {
                let line = line.unwrap();
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest.split(['"', ' ']).next().unwrap().to_string())
            })
            .expect("docker-registry logs its address");
        // Read to the end, so that the registry never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        Some(Self {
            process,
            _storage: storage,
            host,
            client: Client::builder().no_proxy().build().unwrap(),
        })
    }

    fn request(&self, method: Method, repository: &str, path: &str) -> reqwest::RequestBuilder {
        let name = repository.strip_prefix(&format!("{}/", self.host)).unwrap();
        self.client
            .request(method, format!("http://{}/v2/{name}/{path}", self.host))
    }

    pub async fn put_blob(&self, repository: &str, blob: &Content) {
        let begun = self
            .request(Method::POST, repository, "blobs/uploads/")
            .send()
            .await
            .unwrap();
        let location = begun.headers()["Location"].to_str().unwrap();
        let mut url: url::Url = location.parse().unwrap();
        url.query_pairs_mut()
            .append_pair("digest", blob.descriptor.digest().as_ref());
        let put = self.client.put(url).body(blob.bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }

    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Content) {
        let put = self.request(Method::PUT, repository, &format!("manifests/{reference}"));
        let put = put
            .header("Content-Type", manifest.descriptor.media_type().as_ref())
            .body(manifest.bytes.clone());
        let answer = put.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }

    /// Returns the manifest or index under a tag or digest.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Option<Content> {
        let get = self.request(Method::GET, repository, &format!("manifests/{reference}"));
        let accepted = [MediaType::ImageManifest, MediaType::ImageIndex].map(|m| m.to_string());
        let answer = get.header("Accept", accepted.join(", ")).send().await.unwrap();
        if answer.status() == StatusCode::NOT_FOUND {
            return None;
        }
        let media_type = answer.headers()["Content-Type"].to_str().unwrap().to_string();
        Some(content(&media_type, answer.bytes().await.unwrap()))
    }

    pub async fn blob(&self, repository: &str, descriptor: &Descriptor) -> Content {
        let get = self.request(Method::GET, repository, &format!("blobs/{}", descriptor.digest()));
        let bytes = get
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap()
            .bytes()
            .await
            .unwrap();
        content(descriptor.media_type().as_ref(), bytes)
    }

    /// Pushes the same image to a repository.
    pub async fn put_image(&self, name: &str) -> TestImage {
        let repository = format!("{}/{name}", self.host);
        let mut platforms = Vec::new();
        let mut entries: Vec<Value> = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let layer = content(MediaType::ImageLayer.as_ref(), architecture);
            let config = json!({
                "architecture": architecture,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [layer.descriptor.digest()]},
            });
            let config = content(MediaType::ImageConfig.as_ref(), config.to_string());
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageManifest.as_ref(),
                "config": config.descriptor,
                "layers": [layer.descriptor],
            });
            let manifest = content(MediaType::ImageManifest.as_ref(), manifest.to_string());
            self.put_blob(&repository, &layer).await;
            self.put_blob(&repository, &config).await;
            let digest = manifest.descriptor.digest().to_string();
            self.put_manifest(&repository, &digest, &manifest).await;
            let mut entry = serde_json::to_value(&manifest.descriptor).unwrap();
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entries.push(entry);
            platforms.push(manifest.descriptor);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex.as_ref(),
            "manifests": entries,
        });
        let index = content(MediaType::ImageIndex.as_ref(), index.to_string());
        self.put_manifest(&repository, "latest", &index).await;
        TestImage {
            repository,
            index: index.descriptor,
            platforms,
        }
    }

    /// Pushes a signature or attestation, and updates its tag or the fallback tag.
    pub async fn put_artifact(&self, repository: &str, subject: &Descriptor, artifact: &Artifact) {
        for blob in &artifact.blobs {
            self.put_blob(repository, blob).await;
        }
        let digest = artifact.manifest.descriptor.digest().to_string();
        match &artifact.place {
            Place::Tag(tag) => self.put_manifest(repository, tag, &artifact.manifest).await,
            Place::Referrer => {
                self.put_manifest(repository, &digest, &artifact.manifest).await;
                let tag = fallback_tag(subject);
                let mut entries: Vec<Value> = match self.manifest(repository, &tag).await {
                    Some(index) => serde_json::from_slice::<Value>(&index.bytes).unwrap()["manifests"]
                        .as_array()
                        .unwrap()
                        .clone(),
                    None => Vec::new(),
                };
                let manifest: Value = serde_json::from_slice(&artifact.manifest.bytes).unwrap();
                let mut entry = serde_json::to_value(&artifact.manifest.descriptor).unwrap();
                entry["artifactType"] = manifest["artifactType"].clone();
                entry["annotations"] = manifest["annotations"].clone();
                entries.retain(|known| known["digest"] != entry["digest"]);
                entries.push(entry);
                let index = json!({
                    "schemaVersion": 2,
                    "mediaType": MediaType::ImageIndex.as_ref(),
                    "manifests": entries,
                });
                let index = content(MediaType::ImageIndex.as_ref(), index.to_string());
                self.put_manifest(repository, &tag, &index).await;
            }
            Place::Part => unreachable!("signatures are not indexes"),
        }
    }

    /// Returns the artifact under a tag of cosign 2.
    pub async fn tagged(&self, repository: &str, tag: &str) -> Artifact {
        let manifest = self
            .manifest(repository, tag)
            .await
            .unwrap_or_else(|| panic!("no tag {tag}"));
        self.artifact(repository, manifest, Place::Tag(tag.to_string())).await
    }

    /// Returns the referrers of `subject` with their entries in the list.
    pub async fn referrers(&self, repository: &str, subject: &Descriptor) -> Vec<(Descriptor, Artifact)> {
        let Some(index) = self.manifest(repository, &fallback_tag(subject)).await else {
            return Vec::new();
        };
        let index: ImageIndex = serde_json::from_slice(&index.bytes).unwrap();
        let mut found = Vec::new();
        for entry in index.manifests() {
            let manifest = self.manifest(repository, entry.digest().as_ref()).await.unwrap();
            found.push((
                entry.clone(),
                self.artifact(repository, manifest, Place::Referrer).await,
            ));
        }
        found
    }

    async fn artifact(&self, repository: &str, manifest: Content, place: Place) -> Artifact {
        let parsed: ImageManifest = serde_json::from_slice(&manifest.bytes).unwrap();
        let mut blobs = Vec::new();
        for descriptor in parsed.layers().iter().chain([parsed.config()]) {
            blobs.push(self.blob(repository, descriptor).await);
        }
        Artifact { manifest, blobs, place }
    }
}

fn fallback_tag(subject: &Descriptor) -> String {
    subject.digest().as_ref().replace(':', "-")
}
