//! HTTP requests to registries, with TLS and authentication.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ureq::http::{Request, Response, header};
use ureq::{Agent, Body, SendBody};

use super::credentials::{self, Challenge};
use super::docker_config::Credentials;
use super::error::SyncError;
use super::retry::retrying;
use super::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for each read and write.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit for a response. A registry may need long to store a large layer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Settings {
    pub docker_config: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub plain_http: Vec<String>,
}

/// The registries used so far, with their logins.
pub struct Registries {
    agent: Agent,
    docker_config: Option<String>,
    plain_http: Vec<String>,
    known: RefCell<HashMap<String, Rc<Registry>>>,
}

impl Registries {
    pub fn new(settings: Settings) -> Result<Self, SyncError> {
        let config = Agent::config_builder()
            .tls_config(tls::config(settings.ca_file.as_deref())?)
            .http_status_as_error(false)
            .user_agent(concat!("obgp-runtime/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            docker_config: credentials::read(settings.docker_config.as_deref())?,
            plain_http: settings.plain_http,
            known: RefCell::default(),
        })
    }

    pub fn get(&self, host: &str) -> Result<Rc<Registry>, SyncError> {
        if let Some(known) = self.known.borrow().get(host) {
            return Ok(known.clone());
        }
        let registry = Rc::new(Registry {
            agent: self.agent.clone(),
            host: host.to_string(),
            base: self.base(host),
            credential: credentials::get(host, self.docker_config.as_deref())?,
            authorization: RefCell::default(),
        });
        self.known.borrow_mut().insert(host.to_string(), registry.clone());
        Ok(registry)
    }

    fn base(&self, host: &str) -> String {
        if host == "docker.io" {
            return "https://registry-1.docker.io".to_string();
        }
        let plain = self.plain_http.iter().any(|plain| plain == host) || (is_loopback(host) && !self.uses_tls(host));
        format!("{}://{host}", if plain { "http" } else { "https" })
    }

    /// An untrusted certificate also shows that the registry uses TLS; plain HTTP must not bypass it.
    fn uses_tls(&self, host: &str) -> bool {
        match self.agent.get(format!("https://{host}/v2/")).call() {
            Ok(_) => true,
            Err(ureq::Error::Io(error)) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_))),
            Err(_) => false,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

pub struct Registry {
    agent: Agent,
    pub host: String,
    pub base: String,
    credential: Option<Credentials>,
    /// Authorization header values by scope.
    authorization: RefCell<HashMap<Scope, String>>,
}

/// The scopes of a token: repositories with actions.
pub type Scope = Vec<String>;

pub struct Call<'a> {
    pub doing: String,
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(header::HeaderName, String)>,
    pub body: &'a [u8],
    pub scope: Scope,
}

impl Registry {
    /// Sends a request. On status 401 it authenticates and repeats the request once.
    pub fn send(&self, call: &Call) -> Result<Response<Body>, SyncError> {
        let once = || {
            let body = match call.body {
                [] => SendBody::none(),
                _ => SendBody::from_owned_reader(std::io::Cursor::new(call.body.to_vec())),
            };
            let mut headers = call.headers.clone();
            if !call.body.is_empty() {
                headers.push((header::CONTENT_LENGTH, call.body.len().to_string()));
            }
            self.request(call.method, &call.url, &headers, &call.scope, body)
                .map_err(|error| SyncError::transport(&self.host, &call.doing, &error))
        };
        let response = once()?;
        if response.status() != 401 {
            return Ok(response);
        }
        self.log_in(&call.doing, &response, &call.scope)?;
        once()
    }

    pub fn request(
        &self,
        method: &str,
        url: &str,
        headers: &[(header::HeaderName, String)],
        scope: &Scope,
        body: SendBody,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // An upload location may be on another host, which must not get the credentials.
        let ours = url.strip_prefix(&self.base).is_some_and(|path| path.starts_with('/'));
        if let Some(value) = self.authorization.borrow().get(scope).filter(|_| ours) {
            request = request.header(header::AUTHORIZATION, value);
        }
        self.agent.run(request.body(body)?)
    }

    fn log_in(&self, doing: &str, response: &Response<Body>, scope: &Scope) -> Result<(), SyncError> {
        let problem = |problem: &str| SyncError::answer(&self.host, doing, problem);
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = challenges.filter_map(|value| value.to_str().ok());
        let authorization = match Challenge::best(challenges) {
            None => {
                return Err(problem(
                    "the registry requires an authentication scheme other than Basic and Bearer",
                ));
            }
            Some(Challenge::Basic) => match &self.credential {
                Some(Credentials::Password { username, password }) => credentials::basic(username, password),
                Some(Credentials::IdentityToken(_) | Credentials::RegistryToken(_)) => {
                    return Err(problem(
                        "the registry requires a user and a password, but the Docker configuration has a token for it",
                    ));
                }
                None => {
                    return Err(problem(
                        "the registry requires a login, but the Docker configuration has none for it",
                    ));
                }
            },
            Some(Challenge::Bearer { realm, service }) => match &self.credential {
                Some(Credentials::RegistryToken(token)) => format!("Bearer {token}"),
                _ => self.token(&realm, service.as_deref(), scope)?,
            },
        };
        self.authorization.borrow_mut().insert(scope.clone(), authorization);
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>, scope: &Scope) -> Result<String, SyncError> {
        let doing = format!("get a token from {realm}");
        if self.base.starts_with("https:") && !realm.starts_with("https://") {
            return Err(SyncError::answer(
                &self.host,
                &doing,
                "this URL does not use TLS, so credentials are not sent to it",
            ));
        }
        let failed = |error: ureq::Error| SyncError::transport(&self.host, &doing, &error);
        retrying(|| {
            let mut response = match &self.credential {
                Some(Credentials::IdentityToken(token)) => {
                    let scopes = scope.join(" ");
                    let form = [
                        ("grant_type", "refresh_token"),
                        ("client_id", "obgp-runtime"),
                        ("service", service.unwrap_or_default()),
                        ("scope", &scopes),
                        ("refresh_token", token),
                    ];
                    self.agent.post(realm).send_form(form).map_err(failed)?
                }
                other => {
                    let mut request = self.agent.get(realm);
                    if let Some(service) = service {
                        request = request.query("service", service);
                    }
                    for scope in scope {
                        request = request.query("scope", scope);
                    }
                    if let Some(Credentials::Password { username, password }) = other {
                        request = request.header(header::AUTHORIZATION, credentials::basic(username, password));
                    }
                    request.call().map_err(failed)?
                }
            };
            self.expect(&doing, &mut response, &[200])?;
            let text = response.body_mut().read_to_string().map_err(failed)?;
            // If a registry returns both, they are the same.
            let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let token = ["token", "access_token"]
                .into_iter()
                .find_map(|name| value[name].as_str().filter(|token| !token.is_empty()));
            match token {
                Some(token) => Ok(format!("Bearer {token}")),
                None => Err(SyncError::answer(&self.host, &doing, "the response has no token")),
            }
        })
    }

    /// Returns an error with the registry's message unless the status is one of `statuses`.
    pub fn expect(&self, doing: &str, response: &mut Response<Body>, statuses: &[u16]) -> Result<(), SyncError> {
        let status = response.status().as_u16();
        if statuses.contains(&status) {
            return Ok(());
        }
        let retry_after = header_of(response, header::RETRY_AFTER.as_str()).and_then(|value| value.parse().ok());
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 16)
            .read_to_string()
            .unwrap_or_default();
        let hint = match (status, &self.credential) {
            (401 | 403, None) => " (the Docker configuration has no login for it)",
            (401 | 403, Some(_)) => " (with the login from the Docker configuration)",
            _ => "",
        };
        Err(SyncError::Status {
            host: self.host.clone(),
            doing: doing.to_string(),
            status,
            message: message(&body),
            hint,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// The message of an error response, `{"errors":[{"code":…,"message":…}]}`, otherwise the first line of the body.
fn message(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let error = &value["errors"][0];
    let text = match (error["code"].as_str(), error["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => body.lines().next().unwrap_or_default().trim().to_string(),
    };
    match text.is_empty() {
        true => String::new(),
        false => format!(" ({})", text.chars().take(200).collect::<String>()),
    }
}

pub fn header_of<B>(response: &Response<B>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_string)
}
