//! Uploads a blob in chunks, each streamed. After a failure it resumes at the offset that the registry reports
//! (distribution-spec, "Pushing a blob in chunks"; the last chunk is in the closing request).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use oci_spec::image::Descriptor;
use reqwest::{Body, Response, StatusCode};
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use super::client::{ANSWER, Call, Stream, Target, obey};
use super::error::RegistryError;
use super::repository::{Mounted, Repository};
use super::source::{Pieces, Source};

/// Proxies in front of registries buffer a whole request body, so a broken connection costs one chunk. Larger chunks
/// are faster: some registries write each to disk before they answer.
const CHUNK: u64 = 32 << 20;

/// Counts the bytes of all uploads of a push.
#[derive(Default)]
pub struct Meter {
    done: AtomicU64,
    /// Includes bytes that were sent in vain.
    sent: AtomicU64,
}

impl Meter {
    /// Bytes that are complete.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes sent over the wire.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// An upload session in the registry.
struct Session {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
}

/// The blob's bytes from an offset, split into chunks.
struct Feed {
    pieces: Pieces,
    /// The rest of a piece that exceeded a chunk.
    rest: Bytes,
    at: u64,
}

/// Reports from a chunk's body to the upload.
struct Watch {
    /// Bytes of this upload that the meter counts as done.
    counted: AtomicU64,
    moved: Mutex<Instant>,
    /// The error of the source. It breaks the connection, but the connection is not the cause.
    source_failed: Mutex<Option<String>>,
}

impl Repository {
    /// Uploads the blob. `pieces` are its bytes if they are already being read.
    pub(crate) async fn upload(
        &self,
        blob: &Descriptor,
        source: &Source,
        pieces: Option<Pieces>,
        meter: &Arc<Meter>,
    ) -> Result<(), RegistryError> {
        let watch = Arc::new(Watch {
            counted: AtomicU64::new(0),
            moved: Mutex::new(Instant::now()),
            source_failed: Mutex::default(),
        });
        let mut feed = pieces.map(|pieces| Feed::new(pieces, 0));
        let mut session: Option<Session> = None;
        let mut waits = self.client.patience.waits();
        let mut farthest = 0;
        let mut reauthenticated = false;
        loop {
            let standing = match session.take() {
                Some(standing) => standing,
                None => self.begin(blob).await?,
            };
            let (error, left) = match self.send_from(standing, blob, source, feed.take(), &watch, meter).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            if let Some(reason) = watch.failure() {
                return Err(RegistryError::Source {
                    digest: blob.digest().to_string(),
                    reason,
                });
            }
            let expired = matches!(error, RegistryError::Denied { .. }) && !reauthenticated;
            let changed = arrived_changed(&error);
            if !(error.is_transient() || expired || changed || upload_is_gone(&error)) {
                return Err(error);
            }
            if changed {
                self.blame_disk(blob, source).await?;
            }
            if left.offset > farthest {
                farthest = left.offset;
                waits = self.client.patience.waits();
            }
            if expired {
                // The token expired during the upload; the next request gets a new one.
                reauthenticated = true;
            } else {
                let Some(wait) = waits.next() else {
                    return Err(error);
                };
                let wait = obey(&error, wait);
                self.client.note_retry(&error, wait);
                tokio::time::sleep(wait).await;
            }
            // The last request may have succeeded although its response was lost.
            if !changed && self.has_blob(blob).await? {
                watch.count_to(blob.size(), meter);
                return Ok(());
            }
            session = match changed {
                true => None,
                false => self.standing(&left).await?,
            };
            watch.count_to(session.as_ref().map_or(0, |s| s.offset), meter);
        }
    }

    async fn begin(&self, blob: &Descriptor) -> Result<Session, RegistryError> {
        match self.mount_or_begin(blob.digest(), None).await? {
            Mounted::Upload(url) => Ok(Session { url, offset: 0 }),
            Mounted::Done => Err(self
                .client
                .protocol("beginning an upload", "it mounted a blob without a mount request")),
        }
    }

    /// The registry's state of an upload; `None` if it dropped the upload.
    async fn standing(&self, left: &Session) -> Result<Option<Session>, RegistryError> {
        let mut call = self.call(
            format!("requesting the state of an upload to {}", self.path()),
            Method::GET,
            "",
        );
        call.target = Target::Url(left.url.clone());
        let response = self.send(&call).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let url = self
            .location(&call.doing, &response)
            .unwrap_or_else(|_| left.url.clone());
        Ok(received(&response).map(|offset| Session { url, offset }))
    }

    /// Sends the chunks from the session's offset to the blob's end. A failure includes its offset.
    async fn send_from(
        &self,
        mut session: Session,
        blob: &Descriptor,
        source: &Source,
        feed: Option<Feed>,
        watch: &Arc<Watch>,
        meter: &Arc<Meter>,
    ) -> Result<(), (RegistryError, Session)> {
        let size = blob.size();
        let mut feed = feed.filter(|feed| feed.at == session.offset);
        loop {
            let reading = match feed.take() {
                Some(feed) => feed,
                None => Feed::new(source.open(blob, session.offset, 1).remove(0), session.offset),
            };
            let shared = Arc::new(AsyncMutex::new(reading));
            let length = CHUNK.min(size - session.offset);
            let last = session.offset + length == size;
            let sent = self
                .send_chunk(&session, length, last.then_some(blob), &shared, watch, meter)
                .await;
            let response = match sent {
                Ok(response) => response,
                Err(error) => return Err((error, session)),
            };
            if last {
                return Ok(());
            }
            let doing = format!("uploading the blob {}", blob.digest());
            let received = received(&response);
            session.url = match self.location(&doing, &response) {
                Ok(url) => url,
                Err(error) => return Err((error, session)),
            };
            session.offset = received.filter(|at| *at <= size).unwrap_or(session.offset + length);
            feed = Arc::into_inner(shared)
                .map(AsyncMutex::into_inner)
                .filter(|feed| feed.at == session.offset);
        }
    }

    async fn send_chunk(
        &self,
        session: &Session,
        length: u64,
        closes: Option<&Descriptor>,
        feed: &Arc<AsyncMutex<Feed>>,
        watch: &Arc<Watch>,
        meter: &Arc<Meter>,
    ) -> Result<Response, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let mut url = session.url.clone();
        let method = match closes {
            Some(blob) => {
                url.query_pairs_mut().append_pair("digest", blob.digest().as_ref());
                Method::PUT
            }
            None => Method::PATCH,
        };
        let is_whole = closes.is_some() && session.offset == 0;
        if length > 0 && !is_whole {
            let range = format!("{}-{}", session.offset, session.offset + length - 1);
            headers.extend(HeaderValue::try_from(range).map(|range| (CONTENT_RANGE, range)));
        }
        let call = Call {
            doing: format!("uploading a blob to {}", self.path()),
            method,
            target: Target::Url(url),
            headers,
            body: Bytes::new(),
        };
        let stream = Stream {
            body: body(Arc::clone(feed), length, Arc::clone(watch), Arc::clone(meter)),
            length,
        };
        watch.touch();
        let response = self
            .client
            .send_stream(&call, stream, &self.scopes, watch.stalled())
            .await?;
        let expected = match closes {
            Some(_) => StatusCode::CREATED,
            None => StatusCode::ACCEPTED,
        };
        match response.status() {
            status if status == expected || status == StatusCode::NO_CONTENT => Ok(response),
            _ => Err(self.client.refused(&call.doing, response).await),
        }
    }

    /// The registry received other bytes: checks whether the file in the layout is damaged, or the transfer.
    async fn blame_disk(&self, blob: &Descriptor, source: &Source) -> Result<(), RegistryError> {
        let damaged = |reason| RegistryError::Source {
            digest: blob.digest().to_string(),
            reason,
        };
        match source.digest_on_disk().await {
            Some(Ok(found)) if found != blob.digest().to_string() => Err(damaged(format!(
                "the file is damaged: its content has the digest {found}"
            ))),
            Some(Err(e)) => Err(damaged(e.to_string())),
            _ => Ok(()),
        }
    }
}

impl Feed {
    fn new(pieces: Pieces, at: u64) -> Self {
        Self {
            pieces,
            rest: Bytes::new(),
            at,
        }
    }

    async fn next(&mut self, at_most: u64) -> Option<Result<Bytes, String>> {
        if self.rest.is_empty() {
            match self.pieces.recv().await? {
                Ok(piece) => self.rest = piece,
                Err(reason) => return Some(Err(reason)),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(at_most as usize));
        self.at += piece.len() as u64;
        Some(Ok(piece))
    }
}

fn body(feed: Arc<AsyncMutex<Feed>>, length: u64, watch: Arc<Watch>, meter: Arc<Meter>) -> Body {
    Body::wrap_stream(stream::try_unfold(length, move |left| {
        let (feed, watch, meter) = (Arc::clone(&feed), Arc::clone(&watch), Arc::clone(&meter));
        async move {
            if left == 0 {
                return Ok(None);
            }
            let piece = match feed.lock().await.next(left).await {
                Some(Ok(piece)) => piece,
                Some(Err(reason)) => return Err(watch.fail(reason)),
                None => return Err(watch.fail("it is shorter than in its descriptor".into())),
            };
            watch.touch();
            let n = piece.len() as u64;
            watch.counted.fetch_add(n, Ordering::Relaxed);
            meter.done.fetch_add(n, Ordering::Relaxed);
            meter.sent.fetch_add(n, Ordering::Relaxed);
            Ok(Some((piece, left - n)))
        }
    }))
}

impl Watch {
    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn fail(&self, reason: String) -> std::io::Error {
        *self.source_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        std::io::Error::other(reason)
    }

    fn failure(&self) -> Option<String> {
        self.source_failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Completes if no data was accepted for the timeout of a response.
    async fn stalled(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            if moved.elapsed() > ANSWER {
                return;
            }
        }
    }

    /// Corrects this blob's share of the meter to `bytes`.
    fn count_to(&self, bytes: u64, meter: &Meter) {
        let counted = self.counted.swap(bytes, Ordering::Relaxed);
        meter.done.fetch_add(bytes, Ordering::Relaxed);
        meter.done.fetch_sub(counted, Ordering::Relaxed);
    }
}

/// `Range: 0-N`, with the last received byte. An empty upload also reports `0-0`; the one byte is sent again.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, end) = range.trim_start_matches("bytes=").split_once('-')?;
    match end.trim().parse().ok()? {
        0 => Some(0),
        end => Some(end + 1u64),
    }
}

fn arrived_changed(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { message, .. } if message.contains("DIGEST_INVALID"))
}

/// Whether the upload is unknown or at another offset, so that a new upload may succeed.
fn upload_is_gone(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { status, message, .. }
        if *status == StatusCode::NOT_FOUND
            || *status == StatusCode::RANGE_NOT_SATISFIABLE
            || message.contains("BLOB_UPLOAD"))
}
