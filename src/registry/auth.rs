//! Answers a registry's challenge with the `Authorization` of later requests: basic, or a token from its token service
//! (<https://distribution.github.io/distribution/spec/auth/token/>). Tokens are cached per scope until they expire.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::error::{RegistryError, message_of};
use crate::oci::docker_config::{self, Credentials, Login};

/// The lifetime of a token if the service gives none: the specification's minimum.
const DEFAULT_LIFE: u64 = 60;
/// Longer lifetimes are shortened to this.
const LONGEST_LIFE: u64 = 86_400;

pub(super) struct Auth {
    /// As in references and in Docker's configuration.
    host: String,
    http: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// By repository.
    logins: HashMap<String, Login>,
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
        let repository = repository_of(scopes);
        let login = match state.logins.get(repository) {
            Some(login) => login,
            None => {
                let login = docker_config::for_repository(&self.host, repository).await;
                state.logins.entry(repository.to_string()).or_insert(login)
            }
        };
        match (challenge, &login.credentials) {
            (Challenge::Basic, Some(Credentials::Password { username, password })) => {
                self.basic(username, password).map(Some)
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { .. }, Some(Credentials::RegistryToken(token))) => {
                self.secret(format!("Bearer {token}")).map(Some)
            }
            // Holding the lock makes other tasks wait for the same token.
            (Challenge::Bearer { realm, service }, _) => {
                let token = self.fetch(&realm, service.as_deref(), scopes, login).await?;
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
        let Some(challenge) = best(www_authenticate) else {
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
        let used_basic = used.is_some_and(|header| header.as_bytes().starts_with(b"Basic "));
        let basic_refused = challenge == Challenge::Basic && used_basic;
        let changed = state.challenge.replace(challenge.clone()) != Some(challenge);
        Ok((changed || had_token || used.is_none() || state.tokens.contains_key(&key)) && !basic_refused)
    }

    /// What to try if a request in these scopes is denied.
    pub async fn hint(&self, scopes: &[String]) -> String {
        let state = self.state.lock().await;
        hint(
            &self.host,
            state.logins.get(repository_of(scopes)).unwrap_or(&Login::default()),
        )
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
        login: &Login,
    ) -> Result<Token, RegistryError> {
        let no_token = |reason: String, status: Option<StatusCode>| RegistryError::Token {
            host: self.host.clone(),
            realm: realm.to_string(),
            reason,
            status,
            help: match status {
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    format!("\nhelp: {}", hint(&self.host, login))
                }
                _ => String::new(),
            },
        };
        let request = match &login.credentials {
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
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| no_token(format!("its response is not valid JSON: {e}"), Some(status)))?;
        let life = answer.life();
        let token = answer.into_token();
        let token = token.ok_or_else(|| no_token("its response has no token".into(), Some(status)))?;
        Ok(Token {
            header: self.secret(format!("Bearer {token}"))?,
            // Renewed early, because a request takes time to arrive.
            until: Instant::now() + life.mul_f32(0.9),
        })
    }
}

/// Names the problem of a login that cannot be read before it asks for another one.
fn hint(host: &str, login: &Login) -> String {
    match (&login.credentials, login.problems.as_slice()) {
        (Some(_), _) => format!("use other credentials; docker's credentials for {host} do not allow this"),
        (None, []) => format!("docker login {host}"),
        (None, problems) => format!("fix docker's configuration: {}", problems.join("; ")),
    }
}

/// The response of a token service.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds; some services send a text.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Answer {
    fn life(&self) -> Duration {
        let text = self.expires_in.as_str().and_then(|text| text.parse().ok());
        let seconds = text.or(self.expires_in.as_f64()).filter(|seconds| *seconds >= 1.0);
        // The conversion saturates.
        Duration::from_secs(seconds.map_or(DEFAULT_LIFE, |seconds| seconds as u64).min(LONGEST_LIFE))
    }

    fn into_token(self) -> Option<String> {
        let mut both = [self.token, self.access_token].into_iter().flatten();
        both.find(|token| !token.is_empty())
    }
}

/// The repository of the first scope, which the request is for; the others are only read.
fn repository_of(scopes: &[String]) -> &str {
    let scope = scopes.first().and_then(|scope| scope.strip_prefix("repository:"));
    scope
        .and_then(|scope| scope.rsplit_once(':'))
        .map_or("", |(path, _)| path)
}

/// The challenge to answer, of all headers: a token is preferred to a password that is sent each time.
fn best(www_authenticate: &[&str]) -> Option<Challenge> {
    let challenges: Vec<Challenge> = www_authenticate.iter().flat_map(|text| parse(text)).collect();
    let bearer = challenges.iter().find(|challenge| **challenge != Challenge::Basic);
    bearer.or(challenges.first()).cloned()
}

/// The known challenges of one header, up to the first error.
fn parse(www_authenticate: &str) -> Vec<Challenge> {
    let parsed = http_auth::parser::ChallengeParser::new(www_authenticate).map_while(Result::ok);
    let known = |challenge: http_auth::ChallengeRef<'_>| {
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Challenge::Bearer {
            realm: param("realm")?.parse().ok()?,
            service: param("service"),
        })
    };
    parsed.filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_to_a_password_sent_each_time() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="reg",scope="a:b:pull""#;
        let basic = r#"Basic realm="x""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".parse().unwrap(),
            service: Some("reg".into()),
        };
        let (one, other) = (format!("{basic}, {bearer}"), format!("{bearer}, {basic}"));
        for headers in [
            [one.as_str()].as_slice(),
            &[&other],
            &[basic, bearer],
            &[bearer, basic],
            &["Negotiate", basic, bearer],
            &["Bearer realm=\"no URL\"", "=", bearer],
        ] {
            assert_eq!(best(headers).as_ref(), Some(&expected), "{headers:?}");
        }
        for headers in [[basic].as_slice(), &["Negotiate, Basic realm=x"], &["Bearer", "basic"]] {
            assert_eq!(best(headers), Some(Challenge::Basic), "{headers:?}");
        }
        assert_eq!(best(&["Negotiate", ""]), None);
    }

    #[test]
    fn the_token_that_is_not_empty_is_used_for_at_least_as_long_as_the_specification_says() {
        let answer = |text: &str| serde_json::from_str::<Answer>(text).unwrap();
        for text in [
            r#"{"token": "", "access_token": "t"}"#,
            r#"{"token": null, "access_token": "t"}"#,
            r#"{"token": "t", "access_token": ""}"#,
            r#"{"token": "t", "access_token": "other"}"#,
        ] {
            assert_eq!(answer(text).into_token().as_deref(), Some("t"), "{text}");
        }
        assert_eq!(answer(r#"{"token": "", "access_token": ""}"#).into_token(), None);
        for (expires_in, seconds) in [
            ("0", 60),
            ("-1", 60),
            ("null", 60),
            ("\"\"", 60),
            ("300", 300),
            ("300.5", 300),
            ("\"300\"", 300),
            ("1e300", LONGEST_LIFE),
        ] {
            let life = answer(&format!(r#"{{"expires_in": {expires_in}}}"#)).life();
            assert_eq!(life, Duration::from_secs(seconds), "{expires_in}");
        }
        assert_eq!(answer("{}").life(), Duration::from_secs(60));
    }
}
