//! A client for one repository: blobs and manifests by digest, and tags.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::client::{Call, Client, Target, bounded_body};
use super::error::RegistryError;
use super::list::List;
use crate::oci::Content;

/// distribution-spec: registries must accept manifests of 4 MiB; larger ones do not occur.
const MANIFEST_BYTES: usize = 4 << 20;
/// Tags to request in a page.
const TAGS: usize = 1000;

/// Registries respond with 404 if the type of a manifest is not in this list, as if the tag were free. Therefore it
/// names every type, also those that this program does not read.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, application/vnd.cncf.oras.artifact.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, */*";

/// The access that a token needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn scope(self, path: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,push,delete",
        };
        format!("repository:{path}:{actions}")
    }
}

#[derive(Clone)]
pub struct Repository {
    pub(super) client: Arc<Client>,
    path: String,
    pub(super) scopes: Vec<String>,
}

/// The result of a mount.
pub(super) enum Mounted {
    Done,
    /// The registry needs the bytes, at this URL. `shortest_chunk` is its `OCI-Chunk-Min-Length`, or 0.
    Upload {
        url: Url,
        shortest_chunk: u64,
    },
}

impl Repository {
    pub(super) fn new(client: Arc<Client>, path: &str, access: Access) -> Self {
        Self {
            scopes: vec![access.scope(path)],
            path: path.to_string(),
            client,
        }
    }

    pub fn host(&self) -> &str {
        self.client.host()
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn name(&self) -> String {
        format!("{}/{}", self.client.host(), self.path)
    }

    pub(super) fn call(&self, doing: String, method: Method, rest: &str) -> Call {
        Call {
            doing,
            method,
            target: Target::Path(format!("/v2/{}/{rest}", self.path)),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(super) async fn send(&self, call: &Call) -> Result<Response, RegistryError> {
        self.client.send(call, &self.scopes).await
    }

    /// Parses the document `bytes` of the descriptor `what`.
    pub fn parse<T: DeserializeOwned>(&self, what: &Descriptor, bytes: &[u8]) -> Result<T, RegistryError> {
        serde_json::from_slice(bytes).map_err(|e| {
            let doing = format!("reading {} of {}", what.digest(), self.path);
            self.client.protocol(&doing, format!("not a valid JSON document: {e}"))
        })
    }

    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        let digest = blob.digest();
        let doing = format!("checking {} for the blob {digest}", self.path);
        let call = self.call(doing, Method::HEAD, &format!("blobs/{digest}"));
        self.has(&call).await
    }

    /// Whether the registry has the object of `call`. If exactly this request keeps failing, the registry counts as not
    /// having it: docker-registry does this if it was killed, or its disk was full, while it recorded the object;
    /// sending it again repairs it.
    async fn has(&self, call: &Call) -> Result<bool, RegistryError> {
        match self.look_up(call).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) if !error.is_transient() && error.status().is_some_and(|s| s != StatusCode::UNAUTHORIZED) => {
                Ok(self.has_by_get(call).await)
            }
            Err(error) if error.is_failure_of_the_server() => {
                self.client.note(&format!("{error}; sending it again"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Some registries, or the storage services behind them, accept only GET. If that fails too, the object is sent.
    async fn has_by_get(&self, head: &Call) -> bool {
        let mut call = Call {
            doing: head.doing.clone(),
            method: Method::GET,
            target: head.target.clone(),
            headers: head.headers.clone(),
            body: Bytes::new(),
        };
        call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let response = self.client.once(&call, &self.scopes).await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// The headers of a `HEAD`; `None` if the object does not exist.
    async fn look_up(&self, call: &Call) -> Result<Option<HeaderMap>, RegistryError> {
        let response = self.send(call).await?;
        match response.status() {
            status if status.is_success() => Ok(Some(response.headers().clone())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.client.refused(&call.doing, response).await),
        }
    }

    /// Mounts the blob from another repository of the registry, or begins an upload.
    pub(super) async fn mount_or_begin(&self, digest: &Digest, from: Option<&str>) -> Result<Mounted, RegistryError> {
        let doing = format!("beginning the upload of the blob {digest} to {}", self.path);
        let rest = match from {
            Some(from) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.append_pair("mount", digest.as_ref()).append_pair("from", from);
                format!("blobs/uploads/?{}", query.finish())
            }
            None => "blobs/uploads/".to_string(),
        };
        let call = self.call(doing, Method::POST, &rest);
        let mut scopes = self.scopes.clone();
        scopes.extend(from.map(|from| Access::Pull.scope(from)));
        let response = match from {
            // A mount only saves an upload, which has retries of its own.
            Some(_) => self.client.once(&call, &scopes).await?,
            None => self.client.send(&call, &scopes).await?,
        };
        match response.status() {
            StatusCode::CREATED if from.is_some() => Ok(Mounted::Done),
            status if status.is_success() => {
                let shortest = response.headers().get("oci-chunk-min-length");
                let shortest = shortest.and_then(|length| length.to_str().ok()?.trim().parse().ok());
                Ok(Mounted::Upload {
                    url: self.location(&call.doing, &response)?,
                    shortest_chunk: shortest.unwrap_or(0),
                })
            }
            _ => Err(self.client.refused(&call.doing, response).await),
        }
    }

    /// Mounts the blob from `from`. `false` if the registry does not, whatever its reason: the upload that follows reports
    /// what is wrong.
    pub async fn mount(&self, digest: &Digest, from: &str) -> bool {
        match self.mount_or_begin(digest, Some(from)).await {
            Ok(Mounted::Done) => true,
            Ok(Mounted::Upload { url, .. }) => {
                // The unneeded upload: registries also expire these by themselves.
                let mut call = self.call("ending an upload".into(), Method::DELETE, "");
                call.target = Target::Url(url);
                let _ = self.client.once(&call, &self.scopes).await;
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a blob was not mounted");
                false
            }
        }
    }

    /// The `Location` of a response; it may be relative.
    pub(super) fn location(&self, doing: &str, response: &Response) -> Result<Url, RegistryError> {
        let location = response
            .headers()
            .get(http::header::LOCATION)
            .and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| self.client.protocol(doing, "its response has no Location"))?;
        response.url().join(location).map_err(|e| {
            self.client
                .protocol(doing, format!("its Location {location:?} is not a URL: {e}"))
        })
    }

    /// The manifest of a tag or digest; its bytes are checked against a requested digest.
    pub async fn find_manifest(&self, target: &str) -> Result<Option<Content>, RegistryError> {
        let doing = format!("fetching the manifest {target} of {}", self.path);
        let mut call = self.call(doing, Method::GET, &format!("manifests/{target}"));
        call.headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        let response = self.send(&call).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if response.status() != StatusCode::OK {
            return Err(self.client.refused(&call.doing, response).await);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .to_string();
        let bytes = bounded_body(response, MANIFEST_BYTES).await;
        let bytes = bytes.map_err(|reason| self.client.protocol(&call.doing, reason))?;
        let digest = crate::oci::sha256_digest(&Sha256::digest(&bytes).into());
        if target.contains(':') && target != digest.to_string() {
            return Err(RegistryError::WrongDigest {
                host: self.host().to_string(),
                expected: target.to_string(),
                found: digest.to_string(),
            });
        }
        let media_type = media_type(&bytes, content_type);
        Ok(Some(Content {
            descriptor: Descriptor::new(media_type, bytes.len() as u64, digest),
            bytes: bytes.into(),
        }))
    }

    pub async fn manifest(&self, target: &str) -> Result<Content, RegistryError> {
        self.find_manifest(target)
            .await?
            .ok_or_else(|| RegistryError::NotFound {
                repository: self.name(),
                what: if target.contains(':') {
                    format!("manifest {target}")
                } else {
                    format!("tag {target}")
                },
            })
    }

    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.has(&self.asking_for_manifest(digest.as_ref())).await
    }

    /// The digest of a tag, without downloading its content if the registry sends the digest. Only GET proves that
    /// there is no such tag: some registries respond to HEAD with 404 or another error.
    pub async fn tag_digest(&self, tag: &str) -> Result<Option<String>, RegistryError> {
        let headers = match self.look_up(&self.asking_for_manifest(tag)).await {
            Ok(found) => found.unwrap_or_default(),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => HeaderMap::new(),
        };
        match headers.get("docker-content-digest").and_then(|v| v.to_str().ok()) {
            Some(digest) => Ok(Some(digest.to_string())),
            None => self.read_tag_digest(tag).await,
        }
    }

    /// The digest of a tag's content, by GET. What protects a tag relies on this.
    pub async fn read_tag_digest(&self, tag: &str) -> Result<Option<String>, RegistryError> {
        let found = self.find_manifest(tag).await?;
        Ok(found.map(|content| content.descriptor.digest().to_string()))
    }

    fn asking_for_manifest(&self, target: &str) -> Call {
        let doing = format!("checking {} for the manifest {target}", self.path);
        let mut call = self.call(doing, Method::HEAD, &format!("manifests/{target}"));
        call.headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        call
    }

    /// Puts a manifest under a digest or a tag. Returns whether the registry processed its subject (distribution-spec
    /// 1.1).
    pub async fn put_manifest(&self, target: &str, manifest: &Content) -> Result<bool, RegistryError> {
        let doing = format!("putting the manifest {target} into {}", self.path);
        let mut call = self.call(doing, Method::PUT, &format!("manifests/{target}"));
        let media_type = HeaderValue::try_from(manifest.descriptor.media_type().to_string());
        let media_type = media_type.map_err(|_| {
            self.client
                .protocol(&call.doing, "its media type is not a valid header")
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.body = manifest.bytes.clone();
        let response = self.send(&call).await?;
        match response.status().is_success() {
            true => Ok(response.headers().contains_key("oci-subject")),
            false => Err(self.client.refused(&call.doing, response).await),
        }
    }

    /// All tags. Some registries send no `Link` although there is another page (docker groups of Nexus), so the list is
    /// complete only when nothing follows its last tag.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(deserialize_with = "serde::Deserialize::deserialize")]
            tags: Option<Vec<String>>,
        }
        let doing = format!("listing the tags of {}", self.path);
        let call = self.call(doing, Method::GET, &format!("tags/list?n={TAGS}"));
        let mut list = List::new(self, call, |body| {
            let page: Page = serde_json::from_slice(body).map_err(|e| e.to_string())?;
            let tags = page.tags.unwrap_or_default().into_iter();
            Ok(tags.map(|tag| (tag.clone(), tag)).collect())
        });
        let mut target = None;
        loop {
            let page = list.request(target).await?;
            match page.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND if list.items.is_empty() => {
                    return Err(RegistryError::NotFound {
                        repository: self.host().to_string(),
                        what: format!("repository {}", self.path),
                    });
                }
                // It pages with tokens of its own, and its last page was not full.
                status if status.is_client_error() && (1..TAGS).contains(&list.listed) => return Ok(list.items),
                _ => return Err(list.refused(page).await),
            }
            if list.read(page).await? == 0 {
                return Ok(list.items);
            }
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("n", &TAGS.to_string());
            query.extend_pairs(list.items.last().map(|last| ("last", last)));
            target = Some(Target::Path(format!("/v2/{}/tags/list?{}", self.path, query.finish())));
        }
    }
}

/// The media type in the document, else from the response.
fn media_type(bytes: &[u8], content_type: String) -> MediaType {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Typed>(bytes)
        .ok()
        .and_then(|typed| typed.media_type);
    own.unwrap_or(content_type).as_str().into()
}
