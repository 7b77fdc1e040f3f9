//! Logins and challenges in the forms in which users and registries have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::MIB;
use crate::support::distribution::{Distribution, Login, PASSWORD, USER};
use crate::support::habits::{Habit, HabitRegistry};
use crate::support::tool::Tool;

/// A registry with an image that only [`USER`] can read.
async fn guarded(tool: &mut Tool) -> (Distribution, String) {
    tool.project.make("t", 12, MIB);
    let registry = Distribution::start_with(Login::Basic, None);
    tool.login(&registry.host());
    let to = format!("{}/team/app:t", registry.host());
    tool.json(&["push", &tool.image("t"), &to]).await;
    std::fs::remove_file(tool.docker_config.join("config.json")).unwrap();
    (registry, to)
}

fn auth() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

fn config_of(host: &str, entry: &Value) -> String {
    json!({ "auths": { host: entry, "null.example": null } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_read_in_each_form_that_docker_reads() {
    let mut tool = Tool::new("");
    let (registry, image) = guarded(&mut tool).await;
    let host = registry.host();
    let encoded = auth();
    let (first, rest) = encoded.split_at(8);
    let padded = STANDARD.encode(format!("{USER}:{PASSWORD}\0\0"));
    for config in [
        config_of(&host, &json!({ "auth": format!("{first}\n{rest}\n") })),
        config_of(&host, &json!({ "auth": padded })),
        config_of(&host, &json!({ "auth": auth(), "identitytoken": "", "email": null })),
        config_of(&host, &json!({ "username": USER, "password": PASSWORD })),
        config_of(&format!("{host}/"), &json!({ "auth": auth() })),
        config_of(&format!("{host}/v2/"), &json!({ "auth": auth() })),
        config_of(&format!("https://{host}"), &json!({ "auth": auth() })),
        config_of(&format!("http://{host}/v1/"), &json!({ "auth": auth() })),
        json!({ "credsStore": "missing", "auths": { &host: { "auth": auth() } } }).to_string(),
        json!({ "credHelpers": null, "credsStore": "", "auths": { &host: { "auth": auth() } } }).to_string(),
    ] {
        std::fs::write(tool.docker_config.join("config.json"), &config).unwrap();
        assert_eq!(tool.json(&["verify", &image]).await["passed"], true, "{config}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_found_in_each_place_of_docker_and_podman() {
    let mut tool = Tool::new("");
    let (registry, image) = guarded(&mut tool).await;
    let config = config_of(&registry.host(), &json!({ "auth": auth() }));
    let namespaced = config_of(&format!("{}/team", registry.host()), &json!({ "auth": auth() }));
    let home = tool.project.path().to_path_buf();
    let place = |name: &str, text: &str| {
        let path = home.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let runtime = home.join("runtime").display().to_string();
    let other = home.join("other").display().to_string();
    let cases = [
        ("DOCKER_AUTH_CONFIG", config.clone(), None),
        (
            "REGISTRY_AUTH_FILE",
            home.join("auth.json").display().to_string(),
            Some(("auth.json", &config)),
        ),
        (
            "XDG_RUNTIME_DIR",
            runtime,
            Some(("runtime/containers/auth.json", &config)),
        ),
        (
            "XDG_CONFIG_HOME",
            other,
            Some(("other/containers/auth.json", &namespaced)),
        ),
        ("NONE", String::new(), Some((".config/containers/auth.json", &config))),
    ];
    for (variable, value, file) in cases {
        let file = file.map(|(name, text)| place(name, text));
        tool.environment = vec![(variable.into(), value)];
        assert_eq!(tool.json(&["verify", &image]).await["passed"], true, "{variable}");
        file.map(std::fs::remove_file).transpose().unwrap();
        tool.environment.clear();
        let error = tool.failure(1, &["verify", &image]).await;
        assert!(error.contains("docker login"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_read_is_named_where_a_login_is_missing() {
    let mut tool = Tool::new("");
    let (registry, image) = guarded(&mut tool).await;
    let bad_entry = config_of(&registry.host(), &json!({ "auth": "%" }));
    for (config, named) in [
        ("{\"auths\": {", "EOF"),
        (bad_entry.as_str(), "not base64"),
        ("{\"credsStore\": \"missing\"}", "docker-credential-missing"),
    ] {
        let file = tool.docker_config.join("config.json");
        std::fs::write(&file, config).unwrap();
        let error = tool.failure(1, &["verify", &image]).await;
        assert!(
            error.contains(&file.display().to_string()) && error.contains(named),
            "{error}"
        );
        assert!(!error.contains("docker login"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_helper_is_asked_as_docker_asks_it() {
    let mut tool = Tool::new("");
    let (registry, image) = guarded(&mut tool).await;
    let host = registry.host();
    let bin = tool.project.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let helper = |script: &str| {
        let path = bin.join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    tool.environment = vec![("PATH".into(), format!("{}:/usr/bin:/bin", bin.display()))];
    let configure = |config: Value| std::fs::write(tool.docker_config.join("config.json"), config.to_string()).unwrap();
    let found = format!("echo '{{\"ServerURL\": \"\", \"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'");
    // It need not read its input; the registry's helper is preferred, and an empty one stands for the file.
    for (script, config) in [
        (found.clone(), json!({ "credsStore": "test" })),
        (
            format!("test \"$1 $(cat)\" = 'get {host}' && {found}"),
            json!({ "credsStore": "missing", "credHelpers": { &host: "test" }, "auths": { &host: {} } }),
        ),
        (
            "exit 9".into(),
            json!({ "credsStore": "test", "auths": { &host: { "auth": auth() } } }),
        ),
        (
            "exit 9".into(),
            json!({ "credsStore": "test", "credHelpers": { &host: "" }, "auths": { &host: { "auth": auth() } } }),
        ),
    ] {
        helper(&script);
        configure(config);
        assert_eq!(tool.json(&["verify", &image]).await["passed"], true, "{script}");
    }
    // docker-credential-helpers: a helper that works and has no login decides.
    helper("echo 'credentials not found in native keychain'; exit 1");
    configure(json!({ "credsStore": "test", "auths": { &host: { "auth": auth() } } }));
    let error = tool.failure(1, &["verify", &image]).await;
    assert!(error.contains("in `auths` is not used"), "{error}");
    configure(json!({ "credsStore": "test" }));
    for (script, named) in [
        (
            "echo 'credentials not found in native keychain'; exit 1",
            "docker login",
        ),
        (
            "echo 'the keyring is locked' >&2; exit 1",
            "docker-credential-test: exit status: 1: the keyring is locked",
        ),
        (
            "echo '{\"Secret\": \"hunter2\"}'; exit 1",
            "docker-credential-test: exit status: 1",
        ),
        ("echo hunter2", "its output is not a JSON object"),
    ] {
        helper(script);
        let error = tool.failure(1, &["verify", &image]).await;
        assert!(error.contains(named) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_challenge_and_token_is_answered() {
    for habit in [
        Habit::BasicThenBearer,
        Habit::EmptyToken,
        Habit::ExpiresIn(Some(0)),
        Habit::ExpiresIn(Some(-1)),
        Habit::ExpiresIn(None),
    ] {
        let tool = Tool::new("");
        tool.project.make("t", 13, 4096);
        let registry = HabitRegistry::start([habit.clone()]).await;
        tool.login(&registry.host());
        tool.json(&["push", &tool.image("t"), &format!("{}/a/b:t", registry.host())])
            .await;
        let requests = registry.take_requests();
        let tokens = requests.iter().filter(|request| request.path.starts_with("/token"));
        assert_eq!(tokens.count(), 1, "{habit:?}");
    }
}
