//! Answers a registry's challenge with the `Authorization` of later requests: basic, or a token from its token service
//! (<https://distribution.github.io/distribution/spec/auth/token/>). Tokens are cached per scope until they expire.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::error::{RegistryError, message_of};
use crate::oci::docker_config::{self, Credentials};

/// The lifetime of a token if the service gives none: the specification's minimum.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

pub(super) struct Auth {
    /// As in references and in Docker's configuration.
    host: String,
    http: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    credentials: Option<Option<Credentials>>,
    tokens: HashMap<String, Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

impl Auth {
    pub fn new(host: &str, http: reqwest::Client) -> Self {
        Self {
            host: host.to_string(),
            http,
            state: Mutex::default(),
        }
    }

    /// The header for requests in these scopes; `None` before the registry's first challenge, and without credentials.
    pub async fn header(&self, scopes: &[String]) -> Result<Option<HeaderValue>, RegistryError> {
        let mut state = self.state.lock().await;
        let Some(challenge) = state.challenge.clone() else {
            return Ok(None);
        };
        let key = scopes.join(" ");
        if let Some(token) = state.tokens.get(&key)
            && token.until > Instant::now()
        {
            return Ok(Some(token.header.clone()));
        }
        if state.credentials.is_none() {
            state.credentials = Some(docker_config::for_registry(&self.host).await);
        }
        let credentials = state.credentials.as_ref().and_then(Option::as_ref);
        match challenge {
            Challenge::Basic => match credentials {
                Some(Credentials::Password { username, password }) => self.basic(username, password).map(Some),
                _ => Ok(None),
            },
            // Holding the lock makes other tasks wait for the same token.
            Challenge::Bearer { realm, service } => {
                let token = self.fetch(&realm, service.as_deref(), scopes, credentials).await?;
                let header = token.header.clone();
                state.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Records a 401 to a request that sent `used`. Returns whether a retry may succeed.
    pub async fn challenged(
        &self,
        scopes: &[String],
        used: Option<&HeaderValue>,
        www_authenticate: &[&str],
        plain: bool,
    ) -> Result<bool, RegistryError> {
        let challenge = www_authenticate.iter().find_map(|text| parse(text));
        let Some(challenge) = challenge else {
            return Ok(false);
        };
        if let Challenge::Bearer { realm, .. } = &challenge
            && realm.scheme() != "https"
            && !plain
            && !super::settings::is_loopback(realm.host_str().unwrap_or_default())
        {
            return Err(RegistryError::Setup {
                host: self.host.clone(),
                what: format!("its token service {realm}"),
                reason: "credentials would be sent over plain HTTP".into(),
            });
        }
        let mut state = self.state.lock().await;
        let key = scopes.join(" ");
        let had_token = state.tokens.get(&key).is_some_and(|t| Some(&t.header) == used);
        if had_token {
            state.tokens.remove(&key);
        }
        let first = state.challenge.is_none();
        let basic_refused = challenge == Challenge::Basic && used.is_some();
        state.challenge = Some(challenge);
        Ok((first || had_token || used.is_none() || state.tokens.contains_key(&key)) && !basic_refused)
    }

    pub async fn has_login(&self) -> bool {
        matches!(self.state.lock().await.credentials, Some(Some(_)))
    }

    fn basic(&self, username: &str, password: &str) -> Result<HeaderValue, RegistryError> {
        self.secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    fn secret(&self, text: String) -> Result<HeaderValue, RegistryError> {
        let mut header = HeaderValue::try_from(text).map_err(|_| RegistryError::Setup {
            host: self.host.clone(),
            what: "its credentials or token".into(),
            reason: "invalid characters in an HTTP header".into(),
        })?;
        header.set_sensitive(true);
        Ok(header)
    }

    async fn fetch(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        let no_token = |reason: String, status| RegistryError::Token {
            host: self.host.clone(),
            realm: realm.to_string(),
            reason,
            status,
        };
        let request = match credentials {
            // An OAuth 2 refresh token works only with the POST form.
            Some(Credentials::IdentityToken(token)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", token)
                    .append_pair("client_id", "obgp-build")
                    .append_pair("scope", &scopes.join(" "));
                service.map(|service| form.append_pair("service", service));
                self.http
                    .post(realm.clone())
                    .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.finish())
            }
            other => {
                let mut url = realm.clone();
                for scope in scopes {
                    url.query_pairs_mut().append_pair("scope", scope);
                }
                if let Some(service) = service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                let mut request = self.http.get(url);
                if let Some(Credentials::Password { username, password }) = other {
                    request = request.header(http::header::AUTHORIZATION, self.basic(username, password)?);
                }
                request
            }
        };
        let response = request.timeout(Duration::from_secs(60)).send().await;
        let response = response.map_err(|e| RegistryError::connection(&self.host, "requesting a token", &e))?;
        let status = response.status();
        let body = super::client::bounded_body(response, 1 << 20).await;
        let body = body.map_err(|e| no_token(e, None))?;
        if !status.is_success() {
            let reason = match message_of(&body) {
                message if message.is_empty() => status.to_string(),
                message => format!("{status} ({message})"),
            };
            return Err(no_token(reason, Some(status)));
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| no_token(format!("its response is not valid JSON: {e}"), Some(status)))?;
        let token = answer.token.or(answer.access_token).filter(|t| !t.is_empty());
        let token = token.ok_or_else(|| no_token("its response has no token".into(), Some(status)))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        Ok(Token {
            header: self.secret(format!("Bearer {token}"))?,
            // Renewed early, because a request takes time to arrive.
            until: Instant::now() + life.mul_f32(0.9),
        })
    }
}

fn parse(www_authenticate: &str) -> Option<Challenge> {
    let challenges = http_auth::parse_challenges(www_authenticate).ok()?;
    let mut basic = None;
    for challenge in &challenges {
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            return Some(Challenge::Bearer {
                realm: param("realm")?.parse().ok()?,
                service: param("service"),
            });
        }
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_to_a_password_sent_each_time() {
        let bearer =
            parse(r#"Basic realm="x", Bearer realm="https://auth.example/token",service="reg",scope="a:b:pull""#);
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".parse().unwrap(),
            service: Some("reg".into()),
        };
        assert_eq!(bearer, Some(expected));
        assert_eq!(parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
    }
}
