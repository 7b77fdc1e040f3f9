//! Streams a blob from a repository. Resumes after broken connections, and ends with an error if the content does not
//! match the digest.

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method};
use oci_spec::image::Descriptor;
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::client::ANSWER;
use super::error::RegistryError;
use super::repository::Repository;

struct Download {
    repository: Repository,
    blob: Descriptor,
    at: u64,
    response: Option<Response>,
    /// Bytes to drop from the response, if the registry does not support ranges.
    skip: u64,
    /// The hash of a complete read.
    sha: Option<Sha256>,
    waits: Box<dyn Iterator<Item = std::time::Duration> + Send + Sync>,
}

impl Repository {
    /// The blob's bytes from `offset`. Always checks the size, and from 0 also the digest.
    pub fn download(
        &self,
        blob: &Descriptor,
        offset: u64,
    ) -> impl Stream<Item = Result<Bytes, RegistryError>> + Send + use<> {
        let download = Download {
            waits: Box::new(self.client.patience.waits()),
            repository: self.clone(),
            blob: blob.clone(),
            at: offset,
            response: None,
            skip: 0,
            sha: (offset == 0).then(Sha256::new),
        };
        try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|piece| (piece, download)))
        })
    }

    /// Reads a small blob into memory.
    pub async fn blob(&self, blob: &Descriptor) -> Result<Bytes, RegistryError> {
        let limit = crate::layout::Limits::default().json_bytes;
        if blob.size() > limit {
            let doing = format!("fetching the blob {}", blob.digest());
            return Err(self.client.protocol(
                &doing,
                format!("its size of {} bytes exceeds the limit of {limit}", blob.size()),
            ));
        }
        let mut whole = Vec::new();
        let mut stream = std::pin::pin!(self.download(blob, 0));
        while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.into())
    }
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.at == self.blob.size() && self.response.is_none() {
            return self.finish();
        }
        loop {
            let mut response = match self.response.take() {
                Some(response) => response,
                None => self.request().await?,
            };
            let broken = match tokio::time::timeout(ANSWER, response.chunk()).await {
                Ok(Ok(Some(mut piece))) => {
                    self.response = Some(response);
                    let dropped = self.skip.min(piece.len() as u64);
                    self.skip -= dropped;
                    let _ = piece.split_to(dropped as usize);
                    if piece.is_empty() {
                        continue;
                    }
                    self.at += piece.len() as u64;
                    if self.at > self.blob.size() {
                        return Err(self.wrong(format!("the content is longer than {} bytes", self.blob.size())));
                    }
                    if let Some(sha) = &mut self.sha {
                        sha.update(&piece);
                    }
                    return Ok(Some(piece));
                }
                Ok(Ok(None)) if self.at == self.blob.size() => return self.finish(),
                Ok(Ok(None)) => "the content ended early".to_string(),
                Ok(Err(e)) => RegistryError::connection(self.repository.host(), "", &e).to_string(),
                Err(_) => "no data arrived for a minute".to_string(),
            };
            let error = RegistryError::Connection {
                host: self.repository.host().to_string(),
                doing: format!("fetching the blob {}", self.blob.digest()),
                reason: format!("{broken}, after {} of {} bytes", self.at, self.blob.size()),
            };
            let Some(wait) = self.waits.next() else {
                return Err(error);
            };
            self.repository.client.note_retry(&error, wait);
            tokio::time::sleep(wait).await;
        }
    }

    async fn request(&mut self) -> Result<Response, RegistryError> {
        let digest = self.blob.digest();
        let doing = format!("fetching the blob {digest} of {}", self.repository.path());
        let mut call = self.repository.call(doing, Method::GET, &format!("blobs/{digest}"));
        if self.at > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.at));
            call.headers.extend(range.map(|range| (RANGE, range)));
        }
        let response = self.repository.send(&call).await?;
        match response.status() {
            StatusCode::OK => self.skip = self.at,
            StatusCode::PARTIAL_CONTENT => {
                let begins = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
                let expected = format!("bytes {}-", self.at);
                if !begins.is_some_and(|range| range.starts_with(&expected)) {
                    return Err(self
                        .repository
                        .client
                        .protocol(&call.doing, "it returned a range that was not requested"));
                }
                self.skip = 0;
            }
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NotFound {
                    repository: self.repository.name(),
                    what: format!("blob {digest}"),
                });
            }
            _ => return Err(self.repository.client.refused(&call.doing, response).await),
        }
        Ok(response)
    }

    fn finish(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(sha) = self.sha.take() else {
            return Ok(None);
        };
        let found = hex::encode(sha.finalize());
        match found == self.blob.digest().digest() {
            true => Ok(None),
            false => Err(self.wrong(format!("sha256:{found}"))),
        }
    }

    fn wrong(&self, found: String) -> RegistryError {
        RegistryError::WrongDigest {
            host: self.repository.host().to_string(),
            expected: self.blob.digest().to_string(),
            found,
        }
    }
}
