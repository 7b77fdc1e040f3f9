//! A blob into a repository: in chunks, each streamed, and after a failure on from where the registry says it stands
//! (distribution-spec, "Pushing a blob in chunks"; the last chunk comes with the closing request).

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

/// Proxies in front of registries keep a request's body until it is whole, so what a broken connection costs is a chunk.
/// Larger ones are faster: some registries write each to the disk before they answer.
const CHUNK: u64 = 32 << 20;

/// Counts the bytes of all uploads of a push.
#[derive(Default)]
pub struct Meter {
    done: AtomicU64,
    /// Also those that were sent in vain.
    sent: AtomicU64,
}

impl Meter {
    /// Bytes that need not be sent any more.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes that went over the wire.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// An upload that the registry keeps for us.
struct Session {
    url: Url,
    /// How much of the blob it has.
    offset: u64,
}

/// The blob's bytes from some offset on, for one chunk after the other.
struct Feed {
    pieces: Pieces,
    /// The rest of a piece that went over a chunk's end.
    rest: Bytes,
    at: u64,
}

/// What a chunk's body tells the upload.
struct Watch {
    /// Bytes of this upload that are counted as done in the meter.
    counted: AtomicU64,
    moved: Mutex<Instant>,
    /// What went wrong with the source; the connection breaks of it, but is not to blame.
    source_failed: Mutex<Option<String>>,
}

impl Repository {
    /// Uploads the blob. `pieces` are its bytes, where they are being read already.
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
                // The token ran out under way; the next request gets a new one.
                reauthenticated = true;
            } else {
                let Some(wait) = waits.next() else {
                    return Err(error);
                };
                let wait = obey(&error, wait);
                self.client.tell(&error, wait);
                tokio::time::sleep(wait).await;
            }
            // The end may have arrived, and only its answer not.
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
                .protocol("beginning an upload", "it mounts what nobody asked it to mount")),
        }
    }

    /// Where the registry stands with an upload; `None` if it has dropped it.
    async fn standing(&self, left: &Session) -> Result<Option<Session>, RegistryError> {
        let mut call = self.call(
            format!("asking how far an upload to {} is", self.path()),
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

    /// Sends the chunks from the session's offset to the blob's end. A failure comes with where it happened.
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

    /// The registry got other bytes than it should. Was it the way, or does the layout hold them so?
    async fn blame_disk(&self, blob: &Descriptor, source: &Source) -> Result<(), RegistryError> {
        let damaged = |reason| RegistryError::Source {
            digest: blob.digest().to_string(),
            reason,
        };
        match source.digest_on_disk().await {
            Some(Ok(found)) if found != blob.digest().to_string() => Err(damaged(format!(
                "its content has the digest {found}: the file is damaged"
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
                None => return Err(watch.fail("it is shorter than its descriptor says".into())),
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

    /// Ends when nothing was taken for as long as an answer may take.
    async fn stalled(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            if moved.elapsed() > ANSWER {
                return;
            }
        }
    }

    /// Corrects the count of what is done to `bytes` of this blob.
    fn count_to(&self, bytes: u64, meter: &Meter) {
        let counted = self.counted.swap(bytes, Ordering::Relaxed);
        meter.done.fetch_add(bytes, Ordering::Relaxed);
        meter.done.fetch_sub(counted, Ordering::Relaxed);
    }
}

/// `Range: 0-N`, the last byte that is there. An empty upload is told as `0-0` too; the one byte is sent again.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, end) = range.trim_start_matches("bytes=").split_once('-')?;
    match end.trim().parse().ok()? {
        0 => Some(0),
        end => Some(end + 1u64),
    }
}

fn arrived_changed(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { said, .. } if said.contains("DIGEST_INVALID"))
}

/// The upload is unknown by now, or stands elsewhere: begun anew, it may work.
fn upload_is_gone(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { status, said, .. }
        if *status == StatusCode::NOT_FOUND
            || *status == StatusCode::RANGE_NOT_SATISFIABLE
            || said.contains("BLOB_UPLOAD"))
}
