//! Logins: docker's configuration, credential helpers and tokens.

use serde_json::json;

use crate::MIB;
use crate::support::distribution::{Distribution, Login, PASSWORD, USER};
use crate::support::faults::{Fault, FaultyProxy};
use crate::support::tokens;
use crate::support::tool::Tool;

#[tokio::test(flavor = "multi_thread")]
async fn logins_come_from_dockers_config_and_a_missing_login_is_named() {
    let tool = Tool::new("");
    tool.project.make("t", 12, MIB);
    let registry = Distribution::start_with(Login::Basic, None);
    let to = format!("{}/a/b:t", registry.host());
    let error = tool.failure(1, &["push", &tool.image("t"), &to]).await;
    assert!(error.contains("docker login"), "{error}");
    tool.login(&registry.host());
    tool.json(&["push", &tool.image("t"), &to]).await;
    // With a credential helper.
    let helper = tool.project.path().join("bin/docker-credential-test");
    std::fs::create_dir_all(helper.parent().unwrap()).unwrap();
    let credentials = json!({ "ServerURL": registry.host(), "Username": USER, "Secret": PASSWORD });
    std::fs::write(&helper, format!("#!/bin/sh\ncat > /dev/null\necho '{credentials}'\n")).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({ "credHelpers": { registry.host(): "test" } });
    std::fs::write(tool.docker_config.join("config.json"), config.to_string()).unwrap();
    let mut tool = tool;
    let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
    tool.environment.push(("PATH".into(), path));
    assert_eq!(tool.json(&["verify", &to]).await["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed_once() {
    let tool = Tool::new("");
    tool.project.make("t", 13, MIB);
    let tokens = tokens::TokenServer::start(tool.project.path()).await;
    let login = Login::Token {
        realm: tokens.realm(),
        certificate: tokens.certificate.clone(),
    };
    let registry = Distribution::start_with(login, None);
    tool.login(&registry.host());
    let to = format!("{}/a/b:t", registry.host());
    tool.json(&["push", &tool.image("t"), &to]).await;
    assert_eq!(tokens.issued(), 1, "one token is enough for a push");
    // The next token is already expired, although the service reports a lifetime of an hour.
    tokens.issue_expired(1);
    tool.project.make("u", 14, MIB);
    tool.json(&["push", &tool.image("u"), &format!("{}/a/b:u", registry.host())])
        .await;
    assert_eq!(tokens.issued(), 3);
    // If every token is expired, the command gives up.
    tokens.issue_expired(1000);
    let before = tokens.issued();
    let error = tool.failure(1, &["inspect", &to]).await;
    assert!(error.contains("denied"), "{error}");
    assert!(tokens.issued() - before <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_during_an_upload_is_renewed() {
    let tool = Tool::new("");
    let tokens = tokens::TokenServer::start(tool.project.path()).await;
    let login = Login::Token {
        realm: tokens.realm(),
        certificate: tokens.certificate.clone(),
    };
    let registry = Distribution::start_with(login, None);
    let proxy = FaultyProxy::start(registry.address()).await;
    tool.login(&proxy.host());
    let challenge = format!("Bearer realm=\"{}\",service=\"registry\"", tokens.realm());
    proxy.fail(
        1,
        |request| request.is_upload(),
        Fault::Respond(401, vec![("WWW-Authenticate", challenge)]),
    );
    tool.project.make("v", 15, 2 * MIB);
    tool.json(&["push", &tool.image("v"), &format!("{}/a/b:v", proxy.host())])
        .await;
}
