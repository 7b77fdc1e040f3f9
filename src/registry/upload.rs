//! Uploads a blob in chunks, each streamed. After a failure it resumes at the offset that the registry reports
//! (distribution-spec, "Pushing a blob in chunks"; the last chunk is in the closing request). A registry that refuses a kind
//! of request gets another one: see [`Way`].

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

use super::client::{ANSWER, Call, REDIRECTS, Stream, Target, obey};
use super::error::RegistryError;
use super::repository::{Mounted, Repository};
use super::source::{Pieces, Source};
use super::upload_way::{Way, upload_is_gone};

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
    /// `OCI-Chunk-Min-Length`; 0 if the registry names none.
    shortest_chunk: u64,
}

/// A failed request of an upload.
struct Failure {
    error: RegistryError,
    /// Its offset is where the request began.
    left: Session,
    /// Whether it was the closing PUT.
    closing: bool,
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
    meter: Arc<Meter>,
    /// Bytes of this upload that the meter counts as done.
    counted: AtomicU64,
    moved: Mutex<Instant>,
    /// The error of the source. It breaks the connection, but the connection is not the cause.
    source_failed: Mutex<Option<String>>,
}

/// An upload that continues after failures.
struct Upload<'a> {
    to: &'a Repository,
    blob: &'a Descriptor,
    source: &'a Source,
    watch: Arc<Watch>,
    way: Way,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    /// The largest offset of a failure.
    farthest: u64,
    /// The offset of the last broken connection.
    broke_at: Option<u64>,
    reauthenticated: bool,
}

/// How an upload continues after a failure.
enum Next {
    /// The registry has the blob.
    Done,
    Resume(Session),
    Restart,
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
        let mut upload = Upload {
            to: self,
            blob,
            source,
            watch: Arc::new(Watch {
                meter: Arc::clone(meter),
                counted: AtomicU64::new(0),
                moved: Mutex::new(Instant::now()),
                source_failed: Mutex::default(),
            }),
            way: self.client.way(),
            waits: Box::new(self.client.patience.waits()),
            farthest: 0,
            broke_at: None,
            reauthenticated: false,
        };
        let mut feed = pieces.map(|pieces| Feed::new(pieces, 0));
        let mut session = self.begin(blob).await?;
        loop {
            let failure = match upload.send_from(session, feed.take()).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            session = match upload.recover(failure).await? {
                Next::Done => return Ok(()),
                Next::Resume(session) => session,
                Next::Restart => self.begin(blob).await?,
            };
            upload.watch.count_to(session.offset);
        }
    }

    async fn begin(&self, blob: &Descriptor) -> Result<Session, RegistryError> {
        match self.mount_or_begin(blob.digest(), None).await? {
            Mounted::Upload { url, shortest_chunk } => Ok(Session {
                url,
                offset: 0,
                shortest_chunk,
            }),
            Mounted::Done => Err(self
                .client
                .protocol("beginning an upload", "it mounted a blob without a mount request")),
        }
    }

    /// The registry's state of an upload; `None` if the registry dropped the upload or does not report its state.
    async fn standing(&self, left: &Session) -> Option<Session> {
        let mut call = self.call(
            format!("requesting the state of an upload to {}", self.path()),
            Method::GET,
            "",
        );
        call.target = Target::Url(left.url.clone());
        let response = self.send(&call).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let url = self
            .location(&call.doing, &response)
            .unwrap_or_else(|_| left.url.clone());
        Some(Session {
            url,
            offset: received(&response)?,
            shortest_chunk: left.shortest_chunk,
        })
    }
}

impl Upload<'_> {
    /// Sends the chunks from the session's offset to the blob's end. Bytes count as received if the registry accepts their
    /// request: the `Range` of some responses stays at the first chunk (ECR).
    async fn send_from(&self, mut session: Session, feed: Option<Feed>) -> Result<(), Failure> {
        let size = self.blob.size();
        let mut feed = feed.filter(|feed| feed.at == session.offset);
        let mut redirects = Redirects::default();
        loop {
            let reading = match feed.take() {
                Some(feed) => feed,
                None => {
                    let pieces = self.source.open(self.blob, session.offset, 1).remove(0);
                    Feed::new(pieces, session.offset)
                }
            };
            let shared = Arc::new(AsyncMutex::new(reading));
            let (length, closing) = self.way.next_request(size - session.offset, session.shortest_chunk);
            let to = redirects.target.take();
            let sent = self.send_chunk(&session, to, length, closing, &shared).await;
            let response = match sent.and_then(|response| redirects.follow(self.to, response)) {
                Ok(Some(response)) => response,
                Ok(None) => {
                    self.watch.count_to(session.offset);
                    continue;
                }
                Err(error) => {
                    let left = session;
                    return Err(Failure { error, left, closing });
                }
            };
            if closing {
                return Ok(());
            }
            if let Ok(url) = self.to.location("uploading a blob", &response) {
                session.url = url;
            }
            session.offset += length;
            feed = Arc::into_inner(shared)
                .map(AsyncMutex::into_inner)
                .filter(|feed| feed.at == session.offset);
        }
    }

    async fn send_chunk(
        &self,
        session: &Session,
        redirected: Option<Url>,
        length: u64,
        closing: bool,
        feed: &Arc<AsyncMutex<Feed>>,
    ) -> Result<Response, RegistryError> {
        let client = &self.to.client;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let mut url = session.url.clone();
        let method = match closing {
            true => {
                url.query_pairs_mut().append_pair("digest", self.blob.digest().as_ref());
                Method::PUT
            }
            false => Method::PATCH,
        };
        let is_whole = closing && session.offset == 0;
        if length > 0 && !is_whole {
            let range = format!("{}-{}", session.offset, session.offset + length - 1);
            headers.extend(HeaderValue::try_from(range).map(|range| (CONTENT_RANGE, range)));
        }
        let call = Call {
            doing: format!("uploading a blob to {}", self.to.path()),
            method,
            target: Target::Url(redirected.unwrap_or(url)),
            headers,
            body: Bytes::new(),
        };
        let stream = Stream {
            body: body(Arc::clone(feed), length, Arc::clone(&self.watch)),
            length,
        };
        self.watch.touch();
        let response = client
            .send_stream(&call, stream, &self.to.scopes, self.watch.stalled())
            .await?;
        match response.status().is_success() || keeps_method(&response) {
            true => Ok(response),
            false => Err(client.refused(&call.doing, response).await),
        }
    }

    /// Decides how to continue, and waits before a retry.
    async fn recover(&mut self, failure: Failure) -> Result<Next, RegistryError> {
        let Failure { error, left, closing } = failure;
        if let Some(reason) = self.watch.failure() {
            return Err(self.unreadable(reason));
        }
        if arrived_changed(&error) {
            self.blame_disk().await?;
            self.pause(error, left.offset).await?;
            return Ok(Next::Restart);
        }
        let stands = match error.status() {
            Some(_) if self.way != Way::Whole => self.to.standing(&left).await,
            _ => None,
        };
        if stands.as_ref().is_none_or(|stands| stands.offset == left.offset) && self.change_way(&error, &left, closing)
        {
            return Ok(self.from(stands));
        }
        self.pause(error, left.offset).await?;
        // The last request may have succeeded although its response was lost.
        if self.to.has_blob(self.blob).await? {
            self.watch.count_to(self.blob.size());
            return Ok(Next::Done);
        }
        let stands = match stands {
            None if self.way != Way::Whole => self.to.standing(&left).await,
            stands => stands,
        };
        Ok(self.from(stands))
    }

    /// Changes to another kind of request if the registry refused this kind, for later uploads too.
    fn change_way(&mut self, error: &RegistryError, left: &Session, closing: bool) -> bool {
        let may_need_a_token = matches!(error, RegistryError::Denied { .. }) && !self.reauthenticated;
        let other = match may_need_a_token {
            true => None,
            false => self.way.after_refusal(error, left.offset, closing),
        };
        let Some(other) = other else { return false };
        // Without the help of the error.
        let reason = error.to_string();
        let reason = reason.lines().next().unwrap_or_default();
        self.to.client.note(&format!("{reason}; {other}"));
        self.to.client.use_way(other);
        self.way = other;
        true
    }

    fn from(&self, stands: Option<Session>) -> Next {
        match stands {
            Some(session) if self.way != Way::Whole => Next::Resume(session),
            _ => Next::Restart,
        }
    }

    /// Waits before a retry; returns the error if a retry cannot succeed.
    async fn pause(&mut self, error: RegistryError, offset: u64) -> Result<(), RegistryError> {
        if matches!(error, RegistryError::Denied { .. }) && !self.reauthenticated {
            // The token expired during the upload; the next request gets a new one.
            self.reauthenticated = true;
            return Ok(());
        }
        let gone = self.way != Way::Whole && upload_is_gone(&error);
        if !(error.is_transient() || gone || arrived_changed(&error)) {
            return Err(error);
        }
        if offset > self.farthest {
            self.farthest = offset;
            self.waits = Box::new(self.to.client.patience.waits());
        }
        if error.status().is_none() && self.broke_at.replace(offset) == Some(offset) {
            // A connection that breaks again at the same place may bear less.
            self.way = self.way.with_smaller_chunks();
        }
        if let Some(wait) = self.waits.next() {
            let wait = obey(&error, wait);
            self.to.client.note_retry(&error, wait);
            tokio::time::sleep(wait).await;
        } else if let Some(last) = self.way.last_resort(&error) {
            self.to.client.note(&format!("{error}; {last}"));
            self.way = last;
            self.waits = Box::new(self.to.client.patience.waits());
        } else {
            return Err(error);
        }
        Ok(())
    }

    /// The registry received other bytes: checks whether the file in the layout is damaged, or the transfer.
    async fn blame_disk(&self) -> Result<(), RegistryError> {
        match self.source.digest_on_disk().await {
            Some(Ok(found)) if found != self.blob.digest().to_string() => {
                Err(self.unreadable(format!("the file is damaged: its content has the digest {found}")))
            }
            Some(Err(e)) => Err(self.unreadable(e.to_string())),
            _ => Ok(()),
        }
    }

    fn unreadable(&self, reason: String) -> RegistryError {
        RegistryError::Source {
            digest: self.blob.digest().to_string(),
            reason,
        }
    }
}

/// The redirects of one upload. The HTTP client cannot follow them, because it cannot send the body again.
#[derive(Default)]
struct Redirects {
    /// Where the last request must be sent again.
    target: Option<Url>,
    followed: usize,
}

impl Redirects {
    /// `None` for a redirect, which sets the target of the next request.
    fn follow(&mut self, to: &Repository, response: Response) -> Result<Option<Response>, RegistryError> {
        if !keeps_method(&response) {
            self.followed = 0;
            return Ok(Some(response));
        }
        let doing = format!("uploading a blob to {}", to.path());
        self.followed += 1;
        if self.followed > REDIRECTS {
            return Err(to.client.protocol(&doing, "too many redirects"));
        }
        self.target = Some(to.location(&doing, &response)?);
        Ok(None)
    }
}

/// A redirect after which the request has the same method and body (RFC 9110, sections 15.4.8 and 15.4.9).
fn keeps_method(response: &Response) -> bool {
    let statuses = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];
    statuses.contains(&response.status())
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

fn body(feed: Arc<AsyncMutex<Feed>>, length: u64, watch: Arc<Watch>) -> Body {
    Body::wrap_stream(stream::try_unfold(length, move |left| {
        let (feed, watch) = (Arc::clone(&feed), Arc::clone(&watch));
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
            watch.meter.done.fetch_add(n, Ordering::Relaxed);
            watch.meter.sent.fetch_add(n, Ordering::Relaxed);
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
    fn count_to(&self, bytes: u64) {
        let counted = self.counted.swap(bytes, Ordering::Relaxed);
        self.meter.done.fetch_add(bytes, Ordering::Relaxed);
        self.meter.done.fetch_sub(counted, Ordering::Relaxed);
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
