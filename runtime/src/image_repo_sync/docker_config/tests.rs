use super::*;

fn config(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap()
}

fn password(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password {
        username: username.into(),
        password: password.into(),
    })
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The login for a repository, from entries of `auths`.
fn of(auths: Value, host: &str, path: &str) -> Result<Option<Credentials>, String> {
    config(&serde_json::json!({ "auths": auths }).to_string()).login(host, path)
}

#[test]
fn each_key_that_docker_writes_or_wrote_finds_the_login_of_its_host() {
    for host in ["r.example", "r.example:5000", "localhost:5000", "[::1]:5000"] {
        for key in [
            "HOST",
            "HOST/",
            "HOST/v2/",
            "HOST/v1",
            "https://HOST",
            "http://HOST/",
            "https://HOST/v2/",
        ] {
            let auths = serde_json::json!({ key.replace("HOST", host): { "auth": encoded("me:secret") } });
            assert_eq!(of(auths.clone(), host, "a/b"), Ok(password("me", "secret")), "{key}");
            assert_eq!(of(auths, "other.example", "a/b"), Ok(None), "{key}");
        }
    }
    for key in [
        HUB_KEY,
        "docker.io",
        "index.docker.io",
        "https://registry-1.docker.io",
        "https://index.docker.io/v1",
    ] {
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let auths = serde_json::json!({ key: { "auth": encoded("me:secret") } });
            assert_eq!(
                of(auths, host, "library/debian"),
                Ok(password("me", "secret")),
                "{key} for {host}"
            );
        }
    }
}

#[test]
fn a_host_is_not_the_beginning_of_another() {
    let auths = serde_json::json!({
        "r.example:50": { "auth": encoded("a:b") },
        "r.example.org": { "auth": encoded("a:b") },
        "https://evil.example/r.example": { "auth": encoded("a:b") },
    });
    assert_eq!(of(auths, "r.example", "a"), Ok(None));
}

#[test]
fn the_exact_key_is_preferred_and_an_empty_entry_is_passed_over() {
    let auths = serde_json::json!({
        "https://r:1": { "auth": encoded("old:x") }, "r:1": { "auth": encoded("new:y") }, "r:1/v2/": null,
        "https://s:1": { "auth": encoded("old:x") }, "s:1": {},
    });
    assert_eq!(of(auths.clone(), "r:1", "a"), Ok(password("new", "y")));
    assert_eq!(of(auths, "s:1", "a"), Ok(password("old", "x")));
}

#[test]
fn the_login_of_the_nearest_namespace_is_used() {
    let auths = serde_json::json!({
        "quay.io": { "auth": encoded("all:1") },
        "quay.io/team": { "auth": encoded("team:2") },
        "quay.io/team/app": { "auth": encoded("app:3") },
        "r:1/team": { "auth": encoded("only:4") },
    });
    for (host, path, login) in [
        ("quay.io", "team/app", password("app", "3")),
        ("quay.io", "team/app/x", password("app", "3")),
        ("quay.io", "team/application", password("team", "2")),
        ("quay.io", "teams/app", password("all", "1")),
        ("quay.io", "", password("all", "1")),
        ("r:1", "team/x", password("only", "4")),
        // Docker ignores the path.
        ("r:1", "other", password("only", "4")),
    ] {
        assert_eq!(of(auths.clone(), host, path), Ok(login), "{host}/{path}");
    }
}

#[test]
fn auth_may_have_line_breaks_nuls_and_no_padding() {
    let long = format!("me:{}", "p".repeat(80));
    let whole = encoded(&long);
    let (first, rest) = whole.split_at(76);
    let expected = password("me", &long[3..]);
    for auth in [
        format!("{first}\n{rest}\n"),
        format!("{first}\r\n{rest}"),
        whole.trim_end_matches('=').to_string(),
        encoded(&format!("{long}\0\0\0")),
    ] {
        assert_eq!(
            of(serde_json::json!({ "r:1": { "auth": auth } }), "r:1", ""),
            Ok(expected.clone()),
            "{auth:?}"
        );
    }
    let colons = serde_json::json!({ "r:1": { "auth": encoded("me:a:b") } });
    assert_eq!(of(colons, "r:1", ""), Ok(password("me", "a:b")));
}

#[test]
fn an_entry_that_cannot_be_decoded_is_an_error_for_its_own_registry_only() {
    let auths = serde_json::json!({
        "null.example": null,
        "text.example": "x",
        "bad.example": { "auth": "%%%" },
        "plain.example": { "auth": encoded("no colon") },
        "nobody.example": { "auth": encoded(":secret") },
        "good.example": { "auth": encoded("me:secret"), "email": null },
    });
    assert_eq!(of(auths.clone(), "good.example", ""), Ok(password("me", "secret")));
    for host in ["null.example", "text.example"] {
        assert_eq!(of(auths.clone(), host, ""), Ok(None), "{host}");
    }
    for host in ["bad.example", "plain.example", "nobody.example"] {
        let error = of(auths.clone(), host, "").unwrap_err();
        assert!(error.contains(host) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn tokens_count_only_if_they_are_not_empty() {
    let with = |identity: &str, registry: &str| {
        let auths = serde_json::json!({
            "r:1": { "auth": encoded("me:secret"), "identitytoken": identity, "registrytoken": registry }
        });
        of(auths, "r:1", "").unwrap().unwrap()
    };
    assert_eq!(with("", ""), password("me", "secret").unwrap());
    assert_eq!(with("t", ""), Credentials::IdentityToken("t".into()));
    assert_eq!(with("t", "b"), Credentials::RegistryToken("b".into()));
}

#[test]
fn the_file_is_read_as_go_reads_json() {
    let text = format!(
        r#"{{"Auths": {{"r:1": {{"AUTH": "{0}"}}}}, "credHelpers": null, "credsStore": null, "HttpHeaders": {{"x": "y"}}}} trailing"#,
        encoded("me:secret")
    );
    assert_eq!(config(&text).login("r:1", ""), Ok(password("me", "secret")));
    let plain = r#"{"auths": {"r:1": {"username": "me", "password": "secret"}}}"#;
    assert_eq!(config(plain).login("r:1", ""), Ok(password("me", "secret")));
    for empty in ["", " \n", "{}", "null", r#"{"auths": null}"#] {
        assert_eq!(config(empty).login("r:1", ""), Ok(None), "{empty:?}");
    }
    for broken in ["{", "[]", r#"{"auths": []}"#, "x"] {
        assert!(Config::parse(broken.as_bytes()).is_err(), "{broken:?}");
    }
}

#[test]
fn a_helper_that_is_missing_is_named_and_its_registrys_own_entry_is_used() {
    let text = serde_json::json!({
        "credsStore": "obgp-none",
        "credHelpers": { "empty:1": "" },
        "auths": { "r:1": { "auth": encoded("me:secret") }, "empty:1": { "auth": encoded("a:b") } },
    });
    let config = config(&text.to_string());
    assert_eq!(config.login("r:1", ""), Ok(password("me", "secret")));
    assert_eq!(config.login("empty:1", ""), Ok(password("a", "b")));
    let error = config.login("quay.io", "").unwrap_err();
    assert!(error.starts_with("docker-credential-obgp-none: "), "{error}");
}

#[test]
fn a_registrys_helper_is_found_by_its_host() {
    let config =
        config(r#"{"credsStore": "s", "credHelpers": {"quay.io": "q", "docker.io": "d", "https://r:1": "r"}}"#);
    for (host, program) in [
        ("quay.io", "q"),
        ("registry-1.docker.io", "d"),
        ("r:1", "r"),
        ("x", "s"),
    ] {
        assert_eq!(config.helper(host), Some(program), "{host}");
    }
}

#[test]
fn debug_output_has_no_secret() {
    let shown = format!(
        "{:?} {:?} {:?}",
        password("me", "hunter2"),
        Credentials::IdentityToken("hunter2".into()),
        Credentials::RegistryToken("hunter2".into())
    );
    assert!(!shown.contains("hunter2"));
}
