//! The HTTP client of one registry: selects the scheme, authenticates, and retries transient failures.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::redirect::Policy;
use reqwest::{Body, Response, StatusCode};
use tokio::sync::OnceCell;
use url::Url;

use super::auth::Auth;
use super::error::{RegistryError, message_of};
use super::settings::Scheme;
use super::upload_way::Way;
use crate::progress::SharedProgress;

/// Timeout for the start of a response, and for each further part.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// Upper limit for `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
const ERROR_BODY: usize = 64 << 10;
pub(super) const REDIRECTS: usize = 10;

/// The number of retries of transient failures, and the delay between them. Delays double, with jitter.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub tries: usize,
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Patience {
    /// Some 30 seconds, enough for a registry to restart.
    fn default() -> Self {
        Self {
            tries: 7,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(10),
        }
    }
}

impl Patience {
    fn builder(self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.tries.saturating_sub(1))
            .with_jitter()
    }

    /// The delays between tries; ends after the last retry.
    pub(super) fn waits(self) -> impl Iterator<Item = Duration> {
        self.builder().build()
    }
}

/// A request whose body can be sent again.
pub(super) struct Call {
    /// For errors: `requesting the blob sha256:… of a/b`.
    pub doing: String,
    pub method: Method,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone)]
pub(super) enum Target {
    /// The path on the registry's host: `/v2/a/b/manifests/tag`.
    Path(String),
    /// A URL from the registry.
    Url(Url),
}

/// A body of known length that can be sent only once.
pub(super) struct Stream {
    pub body: Body,
    pub length: u64,
}

pub(super) struct Client {
    host: String,
    http: reqwest::Client,
    scheme: Scheme,
    base: OnceCell<Url>,
    auth: Auth,
    pub(super) patience: Patience,
    way: Mutex<Way>,
    /// Whether a list of referrers was read.
    lists_referrers: AtomicBool,
    progress: SharedProgress,
}

impl Client {
    pub fn new(
        host: &str,
        http: reqwest::Client,
        scheme: Scheme,
        patience: Patience,
        progress: SharedProgress,
    ) -> Self {
        Self {
            host: host.to_string(),
            auth: Auth::new(host, http.clone()),
            http,
            scheme,
            base: OnceCell::new(),
            patience,
            way: Mutex::default(),
            lists_referrers: AtomicBool::new(false),
            progress,
        }
    }

    /// The way in which the registry takes blobs, as far as it is known.
    pub fn way(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn use_way(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    pub fn lists_referrers(&self) -> bool {
        self.lists_referrers.load(Ordering::Relaxed)
    }

    pub fn note_list_of_referrers(&self) {
        self.lists_referrers.store(true, Ordering::Relaxed);
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends the request and retries transient failures. Returns other failures as responses: see [`Self::refused`].
    pub async fn send(&self, call: &Call, scopes: &[String]) -> Result<Response, RegistryError> {
        (|| self.once(call, scopes))
            .retry(self.patience.builder())
            .when(RegistryError::is_transient)
            .adjust(|error, wait| wait.map(|wait| obey(error, wait)))
            .notify(|error, wait| self.note_retry(error, wait))
            .await
    }

    pub fn note_retry(&self, error: &RegistryError, wait: Duration) {
        self.progress.wait(&format!("{error}; retrying"), wait);
    }

    pub fn note(&self, text: &str) {
        self.progress.note(text);
    }

    /// Sends the request without a retry of transient failures.
    pub async fn once(&self, call: &Call, scopes: &[String]) -> Result<Response, RegistryError> {
        let url = self.url(&call.target).await?;
        // The first round may end with a challenge, the second with an expired token; a third token would not help.
        let mut rounds = 3;
        loop {
            rounds -= 1;
            let header = self.header_for(&url, scopes).await?;
            let request = self
                .request(&call.method, &url, &call.headers, header.as_ref())
                .body(call.body.clone());
            let answered = tokio::time::timeout(ANSWER, request.send()).await;
            let response = self.answer(&call.doing, answered)?;
            if response.status() == StatusCode::UNAUTHORIZED {
                if rounds > 0 && self.challenged(&response, scopes, header.as_ref()).await? {
                    continue;
                }
                return Err(self.denied(&call.doing, response, scopes).await);
            }
            return self.judged(&call.doing, response, scopes).await;
        }
    }

    /// Sends a body that cannot be sent twice. The caller handles failures, including 401, and redirects.
    pub async fn send_stream(
        &self,
        call: &Call,
        stream: Stream,
        scopes: &[String],
        stalled: impl Future<Output = ()>,
    ) -> Result<Response, RegistryError> {
        let url = self.url(&call.target).await?;
        let header = self.header_for(&url, scopes).await?;
        let mut headers = call.headers.clone();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(stream.length));
        let request = self
            .request(&call.method, &url, &headers, header.as_ref())
            .body(stream.body);
        let response = tokio::select! {
            answered = request.send() => answered.map_err(|e| RegistryError::connection(&self.host, &call.doing, &e))?,
            () = stalled => return Err(self.silent(&call.doing)),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            self.challenged(&response, scopes, header.as_ref()).await?;
            return Err(self.denied(&call.doing, response, scopes).await);
        }
        self.judged(&call.doing, response, scopes).await
    }

    fn answer(
        &self,
        doing: &str,
        answered: Result<reqwest::Result<Response>, tokio::time::error::Elapsed>,
    ) -> Result<Response, RegistryError> {
        match answered {
            Ok(answered) => answered.map_err(|e| RegistryError::connection(&self.host, doing, &e)),
            Err(_) => Err(self.silent(doing)),
        }
    }

    fn silent(&self, doing: &str) -> RegistryError {
        RegistryError::Connection {
            host: self.host.clone(),
            doing: doing.to_string(),
            reason: format!("no data was transferred for {} s", ANSWER.as_secs()),
        }
    }

    fn request(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> reqwest::RequestBuilder {
        let request = self.http.request(method.clone(), url.clone()).headers(headers.clone());
        match authorization {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        }
    }

    /// An upload may go to another host (a storage service), which must not see the credentials.
    async fn header_for(&self, url: &Url, scopes: &[String]) -> Result<Option<HeaderValue>, RegistryError> {
        let base = self.base().await?;
        if url.origin() != base.origin() {
            return Ok(None);
        }
        self.auth.header(scopes).await
    }

    /// The host of a redirect must not ask for the credentials either.
    async fn challenged(
        &self,
        response: &Response,
        scopes: &[String],
        used: Option<&HeaderValue>,
    ) -> Result<bool, RegistryError> {
        let url = response.url();
        if url.origin() != self.base().await?.origin() {
            return Ok(false);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<&str> = challenges.filter_map(|value| value.to_str().ok()).collect();
        self.auth
            .challenged(scopes, used, &challenges, url.scheme() == "http")
            .await
    }

    async fn denied(&self, doing: &str, response: Response, scopes: &[String]) -> RegistryError {
        let status = response.status();
        let message = describe(response).await;
        // A storage service, a proxy or a firewall may refuse a request too.
        let is_about_logins = status == StatusCode::UNAUTHORIZED
            || message.is_empty()
            || ["DENIED", "UNAUTHORIZED"].iter().any(|code| message.contains(code));
        RegistryError::Denied {
            host: self.host.clone(),
            doing: doing.to_string(),
            status,
            message,
            help: match is_about_logins {
                true => self.auth.hint(scopes).await,
                false => "see the message of the registry, or of the proxy or storage service in front of it".into(),
            },
        }
    }

    /// Turns transient failures into errors; returns all other responses.
    async fn judged(&self, doing: &str, response: Response, scopes: &[String]) -> Result<Response, RegistryError> {
        if response.status() == StatusCode::FORBIDDEN {
            return Err(self.denied(doing, response, scopes).await);
        }
        let status = response.status();
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::TOO_MANY_REQUESTS
        {
            return Err(self.refused(doing, response).await);
        }
        Ok(response)
    }

    /// Turns an unexpected response into an error with the registry's message.
    pub async fn refused(&self, doing: &str, response: Response) -> RegistryError {
        RegistryError::Status {
            host: self.host.clone(),
            doing: doing.to_string(),
            status: response.status(),
            retry_after: retry_after(response.headers()),
            message: describe(response).await,
        }
    }

    pub fn protocol(&self, doing: &str, reason: impl Into<String>) -> RegistryError {
        RegistryError::Protocol {
            host: self.host.clone(),
            doing: doing.to_string(),
            reason: reason.into(),
        }
    }

    async fn url(&self, target: &Target) -> Result<Url, RegistryError> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Path(path) => {
                let base = self.base().await?;
                base.join(path).map_err(|e| self.protocol(path, e.to_string()))
            }
        }
    }

    /// `https://HOST`, or `http://HOST` if it is allowed and the registry speaks it.
    async fn base(&self) -> Result<&Url, RegistryError> {
        self.base
            .get_or_try_init(|| async {
                let host = match self.host.as_str() {
                    "docker.io" | "index.docker.io" => "registry-1.docker.io",
                    other => other,
                };
                let url = |scheme: &str| {
                    let text = format!("{scheme}://{host}");
                    text.parse::<Url>()
                        .map_err(|e| self.protocol("building its URL", format!("{text}: {e}")))
                };
                let (https, http) = (url("https")?, url("http")?);
                match self.scheme {
                    Scheme::Tls => Ok(https),
                    Scheme::PlainHttp => Ok(http),
                    Scheme::Either => self.try_plain_first(https, http).await,
                }
            })
            .await
    }

    /// A TLS port answers plain requests with an error, or closes the connection; then plain HTTP must not be used.
    async fn try_plain_first(&self, https: Url, http: Url) -> Result<Url, RegistryError> {
        let doing = "detecting TLS";
        let ask = async |url: &Url| {
            let answered = tokio::time::timeout(ANSWER, self.http.get(format!("{url}v2/")).send()).await;
            self.answer(doing, answered)
        };
        match ask(&http).await {
            Ok(response) if response.status() != StatusCode::BAD_REQUEST => Ok(http),
            _ => ask(&https).await.map(|_| https),
        }
    }
}

/// Follows redirects to storage services and mirrors, but not to web pages: with 303, and from the referrers API to
/// another path, registries lead unknown requests to a page.
pub(super) fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let of_referrers = |url: &Url| url.path().contains("/referrers/");
        let leaves_api = attempt.previous().first().is_some_and(of_referrers) && !of_referrers(attempt.url());
        if attempt.status() == StatusCode::SEE_OTHER || leaves_api {
            return attempt.stop();
        }
        match attempt.previous().len() > REDIRECTS {
            true => attempt.error("too many redirects"),
            false => attempt.follow(),
        }
    })
}

/// The larger of `wait` and the error's `Retry-After`.
pub(super) fn obey(error: &RegistryError, wait: Duration) -> Duration {
    error
        .retry_after()
        .map_or(wait, |asked| asked.clamp(wait, LONGEST_WAIT))
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(SystemTime::now()).ok()
}

async fn describe(response: Response) -> String {
    let body = bounded_body(response, ERROR_BODY).await.unwrap_or_default();
    message_of(&body)
}

/// Reads a body of at most `limit` bytes; the error describes the failure.
pub(super) async fn bounded_body(mut response: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut pieces: VecDeque<Bytes> = VecDeque::new();
    let mut length = 0;
    loop {
        let next = tokio::time::timeout(ANSWER, response.chunk()).await;
        match next.map_err(|_| "the response stalled".to_string())? {
            Ok(Some(piece)) => {
                length += piece.len();
                if length > limit {
                    return Err(format!("it is longer than {limit} bytes"));
                }
                pieces.push_back(piece);
            }
            Ok(None) => return Ok(Vec::from(pieces).concat()),
            Err(e) => return Err(format!("the connection failed: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_as_long_as_the_registry_asks_within_reason() {
        let error = |seconds| RegistryError::Status {
            host: "h".into(),
            doing: "d".into(),
            status: StatusCode::TOO_MANY_REQUESTS,
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(obey(&error(3), Duration::from_secs(1)), Duration::from_secs(3));
        assert_eq!(obey(&error(0), Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(obey(&error(86_400), Duration::from_secs(1)), LONGEST_WAIT);
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(retry_after(&headers(&date)).is_some_and(|wait| wait > Duration::from_secs(50)));
    }

    #[test]
    fn patience_ends_and_waits_grow() {
        let waits: Vec<Duration> = Patience::default().waits().collect();
        assert_eq!(waits.len(), 6);
        assert!(waits[0] < waits[5] && waits.iter().sum::<Duration>() > Duration::from_secs(10));
    }
}
