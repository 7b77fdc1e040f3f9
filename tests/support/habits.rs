//! A registry in memory, on loopback over plain HTTP, whose habits can be switched on.
//!
//! `store` follows the distribution specification 1.1. Each habit here is a deviation of a registry in use; its comment
//! names the registry and a public source. A test starts a registry with habits, and may switch more on later.

mod link;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HOST, LINK, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use link::Link;
use store::{Call, Store};

/// A deviation from the specification. A number is the HTTP status of the response.
#[derive(Clone, Debug, PartialEq)]
pub enum Habit {
    /// Refuses every DELETE of a manifest or tag.
    /// 405: docker-registry unless `storage.delete.enabled` (<https://github.com/distribution/distribution/issues/1222>),
    /// ghcr.io (<https://github.com/podman-container-tools/skopeo/issues/1880>), Docker Hub
    /// (<https://github.com/docker/hub-feedback/issues/2360>).
    Delete(u16),
    /// Refuses DELETE of one tag, which a rule protects.
    /// 412: Harbor's immutable tags (<https://github.com/goharbor/harbor/pull/9475>).
    DeleteOf(&'static str, u16),
    /// Refuses DELETE of a tag and accepts DELETE of a digest, which removes each of its tags.
    /// 400 and 405: docker-registry 2 (<https://github.com/distribution/distribution/issues/1566>).
    DeleteTag(u16),
    /// Refuses DELETE of a digest while a tag points to it.
    /// 400: Google Artifact Registry and GCR (<https://github.com/genuinetools/reg/issues/136>).
    DeleteTagged(u16),

    /// DELETE of a tag deletes its manifest too, and with it every other tag of the manifest.
    /// Harbor 1 (<https://github.com/goharbor/harbor/issues/2663>).
    DeleteTagDeletesManifest,
    /// DELETE of a digest leaves its tags, which still serve the manifest.
    /// nora (<https://github.com/getnora-io/nora/issues/658>).
    DeleteKeepsTags,

    /// Lists at most this many tags or referrers in a page.
    /// 50 and 100: quay.io (<https://github.com/regclient/regclient/issues/272>).
    PageSize(usize),
    /// Lists ever new tags, in full pages without end.
    /// No registry in use; a broken or hostile one must not occupy a client for ever.
    EverNewTags,
    /// The form in which a page names the next one. RFC 8288 allows all that have a `rel` of `next`.
    Link(Link),

    /// Responds so to HEAD of a manifest, while GET works.
    /// 404: Nexus (<https://github.com/crazy-max/diun/issues/1614>); 405 and 400: registries that
    /// <https://github.com/google/go-containerregistry/pull/971> falls back for.
    HeadManifest(u16),
    /// Responds so to HEAD of a blob: the storage service behind the registry accepts only the signed GET.
    /// 403 and 400: ghcr.io (<https://github.com/containerd/stargz-snapshotter/pull/167>), docker-registry on S3
    /// (<https://github.com/distribution/distribution/issues/2055>).
    HeadBlob(u16),
    /// Responds so to a request for a tag that does not exist.
    /// 403: Artifactory (<https://github.com/sigstore/cosign/issues/2973>).
    MissingTag(u16),
    /// Lists this tag and responds with 404 to a request for it.
    /// docker-registry after a push that ended half-way (<https://github.com/distribution/distribution/issues/936>).
    Dangling(&'static str),
    /// Sends no `Docker-Content-Digest`.
    /// registry.access.redhat.com (<https://github.com/google/go-containerregistry/pull/971>).
    NoDigestHeader,
    /// A tag becomes visible so long after its PUT; until then the registry returns what was there before.
    /// ghcr.io (<https://github.com/p2pool-starter-stack/pithead/issues/429>), registry.k8s.io
    /// (<https://github.com/kubernetes-sigs/promo-tools/issues/536>).
    LateTags(Duration),

    /// Refuses a request with more bytes with 416. A PUT without `Content-Range` is unlimited.
    /// 4 MiB: ghcr.io (<https://github.com/ocx-sh/ocx/pull/237>).
    ChunkLimit(usize),
    /// Refuses a request with more bytes with 413.
    /// 1 MiB: nginx unless `client_max_body_size` is set (<https://distribution.github.io/distribution/recipes/nginx/>).
    BodyLimit(usize),
    /// Responds so to an accepted PATCH.
    /// 201: ECR (<https://github.com/jdx/mise/pull/11376>); 204: Pulp
    /// (<https://github.com/pulp/pulp_container/issues/2199>).
    Patch(u16),
    /// Each `Range` ends where the first chunk ended, although the registry has the later ones.
    /// ECR (<https://github.com/aws/containers-roadmap/issues/2831>).
    StuckRange,
    /// Refuses PATCH; a blob is one PUT.
    /// Google Artifact Registry (<https://github.com/podman-container-tools/skopeo/issues/1101>).
    OnlySinglePut(u16),
    /// Redirects requests of this method for a blob or manifest to another name of this registry, below `/moved`, which
    /// accepts no credentials. 307: docker-registry in front of S3
    /// (<https://github.com/distribution/distribution/issues/2313>). 308: ingresses that redirect to their canonical
    /// host (<https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/>).
    Redirect(Method, u16),
    /// Refuses everything but GET and HEAD with 405. docker-registry in read-only mode
    /// (<https://distribution.github.io/distribution/about/configuration/#readonly>), and as a pull-through cache
    /// (<https://distribution.github.io/distribution/recipes/mirror/>).
    ReadOnly,
    /// Refuses to mount a blob.
    /// 401 and 403: Harbor (<https://github.com/oras-project/oras/pull/1924>); others: 404, 405, 500.
    Mount(u16),

    /// Refuses manifests of this type.
    /// 400 and 415: registries without the artifact manifest, which image-spec removed before 1.1
    /// (<https://github.com/opencontainers/image-spec/pull/999>).
    ManifestType(&'static str, u16),
    /// How the referrers API responds.
    Referrers(Referrers),
    /// Has the referrers API and sends `OCI-Subject`, and a proxy in front of it blocks the API with this status.
    /// 403 and 404: gateways that pass only the paths of distribution-spec 1.0.
    BlockedReferrers(u16),
    /// A manifest that was put by digest is unknown until a tag or an index names it.
    /// quay.io (<https://github.com/regclient/regclient/issues/433>).
    OnlyTaggedManifests,
    /// Does not create a repository on a push.
    /// 404: Amazon ECR (<https://github.com/aws/containers-roadmap/issues/853>).
    NoNewRepository(u16),
    /// Has the referrers API, and sends no `OCI-Subject`.
    /// go-containerregistry's registry, quay.io (<https://github.com/opencontainers/distribution-spec/pull/563>).
    NoSubjectHeader,
    /// Takes the tag `sha256-HEX` for the digest `sha256:HEX`, so that the fallback tag serves the subject itself.
    /// GitLab (<https://github.com/oras-project/oras-go/issues/1396>).
    TagIsDigest,

    /// Requires a token, and names Basic before Bearer in a header of its own. Basic is refused.
    /// Azure Container Registry names both (<https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>).
    BasicThenBearer,
    /// Requires a token, which its token service returns as `access_token` beside an empty `token`.
    /// The two names: <https://distribution.github.io/distribution/spec/auth/token/>.
    EmptyToken,
    /// Requires a token, whose response has this `expires_in`, or none, which means 60 s by the same page.
    ExpiresIn(Option<i64>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Referrers {
    /// 404: distribution-spec 1.0. 406: Artifactory (<https://github.com/google/go-containerregistry/pull/2026>).
    /// 403, 429 and 501: firewalls and proxies in front of a registry without the API.
    Status(u16),
    /// 303 to a web page, which a client that follows redirects reads with status 200.
    /// ghcr.io (<https://github.com/artifacthub/hub/issues/4785>), where the page may also answer 429.
    WebPage,
    /// 200 with a web page: "false 200" (<https://github.com/sigstore/sigstore-js/pull/1187>).
    Html,
    /// 200 with JSON of another type (<https://github.com/oras-project/oras-go/pull/635>).
    OtherJson,
}

/// A request and the status of its response.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// Includes the query.
    pub path: String,
    /// Length of the body.
    pub sent: usize,
    pub status: u16,
    /// The `Host` header.
    pub host: String,
    /// Whether it had credentials.
    pub authorized: bool,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

pub struct HabitRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl HabitRegistry {
    pub async fn start(habits: impl IntoIterator<Item = Habit>) -> Self {
        Self::start_on("127.0.0.1", habits).await
    }

    pub async fn start_on(ip: &str, habits: impl IntoIterator<Item = Habit>) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            address,
            habits: habits.into_iter().collect(),
            store: Store::default(),
            tokens: HashMap::new(),
            log: Vec::new(),
        }));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { address, state }
    }

    /// `127.0.0.1:PORT` or `[::1]:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn switch_on(&self, habit: Habit) {
        self.state.lock().unwrap().habits.push(habit);
    }

    pub fn switch_off(&self, habit: &Habit) {
        self.state.lock().unwrap().habits.retain(|has| has != habit);
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    /// The tags of a repository and their digests, late ones included.
    pub fn tags(&self, repository: &str) -> BTreeMap<String, String> {
        self.state.lock().unwrap().store.all_tags(repository)
    }

    /// Stores a manifest without a request, and returns its digest.
    pub fn put(&self, repository: &str, tag: Option<&str>, media_type: &str, document: &Value) -> String {
        let bytes = document.to_string().into();
        self.state.lock().unwrap().store.put(repository, tag, media_type, bytes)
    }

    /// Stores a blob without a request, and returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: &'static [u8]) -> String {
        self.state.lock().unwrap().store.put_blob(repository, bytes.into())
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.state.lock().unwrap().store.blob(repository, digest)
    }

    pub fn manifest(&self, repository: &str, digest: &str) -> Option<Value> {
        self.state.lock().unwrap().store.document(repository, digest)
    }
}

struct State {
    address: SocketAddr,
    habits: Vec<Habit>,
    store: Store,
    /// Issued tokens, and when they expire.
    tokens: HashMap<String, Instant>,
    log: Vec<Asked>,
}

type Answer = Response<Full<Bytes>>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.to_string(),
        sent: body.len(),
        status: 0,
        host: header(HOST).unwrap_or_default().to_string(),
        authorized: header(AUTHORIZATION).is_some(),
    };
    let mut call = Call::new(parts, body);
    let mut state = state.lock().unwrap();
    let habits = state.habits.clone();
    let response = match habits.iter().find_map(|habit| state.before(habit, &mut call)) {
        Some(response) => response,
        None => {
            let mut response = state.store.respond(&call);
            habits.iter().for_each(|habit| state.after(habit, &call, &mut response));
            response
        }
    };
    asked.status = response.status().as_u16();
    state.log.push(asked);
    Ok(response)
}

impl State {
    /// Changes a request, or responds in place of the registry.
    fn before(&mut self, habit: &Habit, call: &mut Call) -> Option<Answer> {
        let is = |method: Method, part: &str| call.method == method && call.path.contains(part);
        if let Some(status) = self.refusal(habit, call) {
            let code = match habit {
                Habit::NoNewRepository(_) => "NAME_UNKNOWN",
                _ => "UNSUPPORTED",
            };
            return Some(error(status, code));
        }
        match habit {
            Habit::LateTags(delay) => self.store.tags_are_late_by(*delay),
            Habit::PageSize(most) => {
                let asked = call.query.get("n").and_then(|n| n.parse().ok()).unwrap_or(*most);
                call.query.insert("n".into(), asked.min(*most).to_string());
            }
            Habit::DeleteTagDeletesManifest if is(Method::DELETE, "/manifests/") => {
                self.store.use_digest(&mut call.path)
            }
            Habit::DeleteKeepsTags
                if is(Method::DELETE, "/manifests/sha256:") && self.store.has_manifest(&call.path) =>
            {
                return Some(reply(202, &[], ""));
            }
            Habit::TagIsDigest => {
                let digest = call.path.replace("/manifests/sha256-", "/manifests/sha256:");
                if self.store.has_manifest(&digest) {
                    call.path = digest;
                }
            }
            Habit::EverNewTags if call.path.ends_with("/tags/list") => {
                let n = call.query.get("n").and_then(|n| n.parse().ok()).unwrap_or(100);
                let last: usize = call.query.get("last").and_then(|last| last.parse().ok()).unwrap_or(0);
                let tags: Vec<_> = (last..last + n).map(|at| format!("{:09}", at + 1)).collect();
                let link = format!("<{}?n={n}&last={}>; rel=\"next\"", call.path, last + n);
                return Some(reply(200, &[(LINK, link)], json!({ "tags": tags }).to_string()));
            }
            Habit::Redirect(..) if call.path.starts_with("/moved") => call.path = call.path.split_off("/moved".len()),
            Habit::Redirect(method, status) if call.method == *method && is_object(&call.path) => {
                let query = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(&call.query)
                    .finish();
                let target = format!("http://localhost:{}/moved{}?{query}", self.address.port(), call.path);
                return Some(reply(*status, &[(LOCATION, target)], ""));
            }
            Habit::Referrers(odd) if call.path.contains("/referrers/") => return Some(odd.respond()),
            Habit::Referrers(_) if call.path == "/page" => return Some(html()),
            Habit::BasicThenBearer | Habit::EmptyToken | Habit::ExpiresIn(_) => return self.authorize(habit, call),
            _ => {}
        }
        None
    }

    /// The status of a refused request.
    fn refusal(&self, habit: &Habit, call: &Call) -> Option<u16> {
        let is = |method: Method, part: &str| call.method == method && call.path.contains(part);
        let by_digest = call.path.contains("/manifests/sha256:");
        let size = call.body.len();
        match *habit {
            Habit::Delete(status) => is(Method::DELETE, "/manifests/").then_some(status),
            Habit::DeleteOf(tag, status) => {
                (is(Method::DELETE, "/manifests/") && call.path.ends_with(tag)).then_some(status)
            }
            Habit::DeleteTag(status) => (is(Method::DELETE, "/manifests/") && !by_digest).then_some(status),
            Habit::DeleteTagged(status) => {
                (is(Method::DELETE, "/manifests/") && by_digest && self.store.is_tagged(&call.path)).then_some(status)
            }
            Habit::HeadManifest(status) => is(Method::HEAD, "/manifests/").then_some(status),
            Habit::MissingTag(status) => {
                let asks = !by_digest && call.path.contains("/manifests/");
                let asks = asks && matches!(call.method, Method::GET | Method::HEAD);
                (asks && self.store.digest_of(&call.path).is_none()).then_some(status)
            }
            Habit::Dangling(tag) => {
                let asks = call.path.contains("/manifests/") && call.path.ends_with(tag);
                (asks && matches!(call.method, Method::GET | Method::HEAD)).then_some(404)
            }
            Habit::ReadOnly => (!matches!(call.method, Method::GET | Method::HEAD)).then_some(405),
            Habit::HeadBlob(status) => is(Method::HEAD, "/blobs/").then_some(status),
            Habit::OnlySinglePut(status) => is(Method::PATCH, "/blobs/uploads/").then_some(status),
            Habit::Mount(status) => call.query.contains_key("mount").then_some(status),
            Habit::ChunkLimit(most) => {
                let is_chunk = call.method == Method::PATCH || call.headers.contains_key(CONTENT_RANGE);
                (is_chunk && size > most).then_some(416)
            }
            Habit::BodyLimit(most) => (size > most).then_some(413),
            Habit::ManifestType(media_type, status) => {
                let sent = call.headers.get(CONTENT_TYPE).is_some_and(|sent| sent == media_type);
                (is(Method::PUT, "/manifests/") && sent).then_some(status)
            }
            Habit::NoNewRepository(status) => {
                (is(Method::POST, "/blobs/uploads/") && !self.store.has_repository(&call.path)).then_some(status)
            }
            Habit::OnlyTaggedManifests => {
                let asks = matches!(call.method, Method::GET | Method::HEAD) && by_digest;
                (asks && !self.store.is_named(&call.path)).then_some(404)
            }
            Habit::BlockedReferrers(status) | Habit::Referrers(Referrers::Status(status)) => {
                call.path.contains("/referrers/").then_some(status)
            }
            _ => None,
        }
    }

    /// Changes a response of the registry.
    fn after(&mut self, habit: &Habit, call: &Call, response: &mut Answer) {
        let headers = response.headers_mut();
        match habit {
            Habit::Link(form) => form.rewrite(call, self.address, response),
            Habit::NoDigestHeader => drop(headers.remove("docker-content-digest")),
            Habit::NoSubjectHeader | Habit::Referrers(_) => drop(headers.remove("oci-subject")),
            Habit::StuckRange => {
                if let Some(first) = self.store.first_chunk(&call.path)
                    && headers.contains_key(RANGE)
                {
                    headers.insert(RANGE, value(&format!("0-{}", first.saturating_sub(1))));
                }
            }
            Habit::Patch(status) if call.method == Method::PATCH && response.status() == 202 => {
                *response.status_mut() = (*status).try_into().unwrap();
            }
            _ => {}
        }
    }

    /// The token service at `/token`, and the challenge of a request without a token of it.
    fn authorize(&mut self, habit: &Habit, call: &Call) -> Option<Answer> {
        if call
            .headers
            .get(HOST)
            .is_some_and(|host| *host != self.address.to_string())
        {
            return None;
        }
        if call.path == "/token" {
            let token = format!("token-{}", self.tokens.len());
            let body = match habit {
                Habit::EmptyToken => json!({"token": "", "access_token": token, "expires_in": 300}),
                Habit::ExpiresIn(Some(seconds)) => json!({"token": token, "expires_in": seconds}),
                Habit::ExpiresIn(None) => json!({"token": token}),
                _ => json!({"token": token, "expires_in": 300}),
            };
            self.tokens.insert(token, Instant::now() + Duration::from_secs(60));
            return Some(reply(200, &[], body.to_string()));
        }
        let given = call.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|given| given.strip_prefix("Bearer "));
        let until = token.and_then(|token| self.tokens.get(token));
        if until.is_some_and(|until| *until > Instant::now()) {
            return None;
        }
        let bearer = format!("Bearer realm=\"http://{}/token\",service=\"habits\"", self.address);
        let mut headers = vec![(WWW_AUTHENTICATE, bearer)];
        if *habit == Habit::BasicThenBearer {
            headers.insert(0, (WWW_AUTHENTICATE, "Basic realm=\"habits\"".into()));
        }
        Some(reply(401, &headers, ""))
    }
}

impl Referrers {
    fn respond(self) -> Answer {
        match self {
            Self::Status(status) => error(status, "UNSUPPORTED"),
            Self::WebPage => reply(303, &[(LOCATION, "/page".into())], ""),
            Self::Html => html(),
            Self::OtherJson => reply(200, &[(CONTENT_TYPE, "application/json".into())], r#"{"ok":true}"#),
        }
    }
}

/// Whether a path is of a blob, an upload or a manifest.
fn is_object(path: &str) -> bool {
    path.contains("/blobs/") || path.contains("/manifests/")
}

fn value(text: &str) -> HeaderValue {
    text.parse().unwrap()
}

fn reply(status: u16, headers: &[(HeaderName, String)], body: impl Into<Bytes>) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(body.into())).unwrap()
}

/// An error as in distribution-spec, "Error Codes".
fn error(status: u16, code: &str) -> Answer {
    let body = json!({"errors": [{"code": code, "message": code.to_lowercase().replace('_', " ")}]});
    reply(status, &[(CONTENT_TYPE, "application/json".into())], body.to_string())
}

fn html() -> Answer {
    reply(200, &[(CONTENT_TYPE, "text/html".into())], "<html>Sign in</html>")
}
