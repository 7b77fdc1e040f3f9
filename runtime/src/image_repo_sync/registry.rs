//! The registry API: one method per request of the distribution specification.

use std::io::Read;

use ureq::SendBody;
use ureq::http::header;

use super::client::{Call, Registry, Scope, header_of};
use super::error::SyncError;
use super::manifest;
use super::retry::retrying;

/// Larger than any manifest that registries accept.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug)]
pub struct Manifest {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: String,
}

/// The start of a blob upload.
pub enum Upload {
    /// The registry already had the blob in another repository.
    Mounted,
    /// The URL for the content.
    At(String),
}

fn pull(repository: &str) -> Scope {
    vec![format!("repository:{repository}:pull")]
}

fn push(repository: &str) -> Scope {
    vec![format!("repository:{repository}:pull,push")]
}

impl Registry {
    /// `None` if the manifest does not exist.
    pub fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>, SyncError> {
        self.manifest_at(
            &format!("manifests/{reference}"),
            repository,
            &manifest::MEDIA_TYPES.join(", "),
        )
        .and_then(|found| match found {
            Some(found) if reference.contains(':') && found.digest != reference => {
                let doing = format!("read {repository}@{reference}");
                Err(SyncError::answer(
                    &self.host,
                    &doing,
                    format!("the content has the digest {}", found.digest),
                ))
            }
            found => Ok(found),
        })
    }

    /// The index of referrers to a manifest. `None` if the registry does not support the referrers API.
    pub fn referrers(&self, repository: &str, digest: &str) -> Result<Option<Manifest>, SyncError> {
        self.manifest_at(&format!("referrers/{digest}"), repository, manifest::INDEX)
            .map(|found| found.filter(|found| found.media_type == manifest::INDEX))
    }

    fn manifest_at(&self, what: &str, repository: &str, accept: &str) -> Result<Option<Manifest>, SyncError> {
        let call = Call {
            doing: format!("read {repository} {what}"),
            method: "GET",
            url: format!("{}/v2/{repository}/{what}", self.base),
            headers: vec![(header::ACCEPT, accept.to_string())],
            body: &[],
            scope: pull(repository),
        };
        retrying(|| {
            let mut response = self.send(&call)?;
            // Registries without the referrers API may return 400 for its path or for such a tag.
            if matches!(response.status().as_u16(), 404 | 400 | 405) {
                return Ok(None);
            }
            self.expect(&call.doing, &mut response, &[200])?;
            let media_type = header_of(&response, header::CONTENT_TYPE.as_str()).unwrap_or_default();
            let bytes = response
                .body_mut()
                .with_config()
                .limit(MAX_MANIFEST_BYTES)
                .read_to_vec()
                .map_err(|error| SyncError::transport(&self.host, &call.doing, &error))?;
            Ok(Some(Manifest {
                digest: manifest::digest(&bytes, what.split_once('/').map(|(_, reference)| reference)),
                media_type: media_type.split(';').next().unwrap_or_default().trim().to_string(),
                bytes,
            }))
        })
    }

    /// Returns whether the registry maintains the list of referrers to the manifest's subject (OCI-Subject).
    pub fn put_manifest(&self, repository: &str, reference: &str, manifest: &Manifest) -> Result<bool, SyncError> {
        let call = Call {
            doing: format!("write {repository} manifests/{reference}"),
            method: "PUT",
            url: format!("{}/v2/{repository}/manifests/{reference}", self.base),
            headers: vec![(header::CONTENT_TYPE, manifest.media_type.clone())],
            body: &manifest.bytes,
            scope: push(repository),
        };
        retrying(|| {
            let mut response = self.send(&call)?;
            self.expect(&call.doing, &mut response, &[201, 202, 200])?;
            match header_of(&response, "docker-content-digest") {
                Some(digest) if digest != manifest.digest => {
                    let problem = format!("the registry stored it as {digest}, not as {}", manifest.digest);
                    Err(SyncError::answer(&self.host, &call.doing, problem))
                }
                _ => Ok(response.headers().contains_key("oci-subject")),
            }
        })
    }

    pub fn has_blob(&self, repository: &str, digest: &str) -> Result<bool, SyncError> {
        let call = Call {
            doing: format!("look for {repository} {digest}"),
            method: "HEAD",
            url: format!("{}/v2/{repository}/blobs/{digest}", self.base),
            headers: Vec::new(),
            body: &[],
            scope: push(repository),
        };
        retrying(|| {
            let mut response = self.send(&call)?;
            self.expect(&call.doing, &mut response, &[200, 404])?;
            Ok(response.status() == 200)
        })
    }

    /// Starts an upload. With `from`, a repository of this registry that has the blob, the registry may mount the blob instead.
    pub fn start_upload(&self, repository: &str, digest: &str, from: Option<&str>) -> Result<Upload, SyncError> {
        let mut scope = push(repository);
        let mut url = format!("{}/v2/{repository}/blobs/uploads/", self.base);
        if let Some(from) = from {
            scope.extend(pull(from));
            url.push_str(&format!("?mount={digest}&from={from}"));
        }
        let call = Call {
            doing: format!("start the upload of {repository} {digest}"),
            method: "POST",
            url,
            headers: vec![(header::CONTENT_LENGTH, "0".to_string())],
            body: &[],
            scope,
        };
        let mut response = self.send(&call)?;
        self.expect(&call.doing, &mut response, &[201, 202])?;
        if response.status() == 201 {
            return Ok(Upload::Mounted);
        }
        let location = header_of(&response, header::LOCATION.as_str());
        let location =
            location.ok_or_else(|| SyncError::answer(&self.host, &call.doing, "the response has no Location"))?;
        let location = match location.starts_with('/') {
            true => format!("{}{location}", self.base),
            false => location,
        };
        let separator = if location.contains('?') { '&' } else { '?' };
        Ok(Upload::At(format!("{location}{separator}digest={digest}")))
    }

    /// Uploads the whole blob in one request, streamed through a buffer.
    pub fn upload(&self, repository: &str, location: &str, size: u64, content: &mut dyn Read) -> Result<(), SyncError> {
        let doing = format!("upload to {repository}");
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_string()),
            (header::CONTENT_LENGTH, size.to_string()),
        ];
        let mut response = self
            .request(
                "PUT",
                location,
                &headers,
                &push(repository),
                SendBody::from_reader(content),
            )
            .map_err(|error| SyncError::transport(&self.host, &doing, &error))?;
        self.expect(&doing, &mut response, &[201])
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Result<impl Read, SyncError> {
        let call = Call {
            doing: format!("read {repository} {digest}"),
            method: "GET",
            url: format!("{}/v2/{repository}/blobs/{digest}", self.base),
            headers: vec![(header::ACCEPT_ENCODING, "identity".to_string())],
            body: &[],
            scope: pull(repository),
        };
        let mut response = self.send(&call)?;
        self.expect(&call.doing, &mut response, &[200])?;
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }
}
