//! Tests connections to an engine: TLS with client certificates, docker contexts, interruptions and errors.

mod support;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use obgp_build::buildkit::{self, Daemon};
use obgp_build::engine::endpoint::{Endpoint, Settings};
use obgp_build::engine::{Address, Engine, Origin};
use sha2::{Digest, Sha256};
use support::tls::Certificates;
use support::{Recorder, Which, proxy};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_over_tls_with_client_certificates() {
    let engine = Which::Machine.endpoint().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let address = proxy::start_tls(&engine, certificates.server).await;
    let settings = Settings {
        docker_host: Some(format!("tcp://{address}")),
        docker_cert_path: Some(dir.path().into()),
        tls_verify: true,
        ..Settings::default()
    };
    let endpoint = Endpoint::choose(&settings).unwrap();
    support::on_endpoint(endpoint, async |lab| {
        let base = lab.shell_image().await;
        let request = lab.request(&format!("FROM {base}\nCOPY f /\n"), &[("f", &"x".repeat(5 << 20))]);
        lab.solve(&request).await.unwrap();
    })
    .await;

    // Without the client key the engine closes the connection.
    std::fs::remove_file(dir.path().join("key.pem")).unwrap();
    let error = connect_error(Endpoint::choose(&settings).unwrap()).await;
    assert!(error.contains("cert.pem"), "{error}");
    // Without the CA the client closes the connection.
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let error = connect_error(Endpoint::choose(&settings).unwrap()).await;
    assert!(error.contains("certificate") && error.contains("ca.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_context_is_used_with_its_certificates() {
    let engine = Which::Machine.endpoint().unwrap();
    let config = tempfile::tempdir().unwrap();
    let id = hex::encode(Sha256::digest(b"lab"));
    let certificates = Certificates::make(&config.path().join("contexts/tls").join(&id).join("docker"));
    let address = proxy::start_tls(&engine, certificates.server).await;
    let meta = config.path().join("contexts/meta").join(&id);
    std::fs::create_dir_all(&meta).unwrap();
    let text = serde_json::json!({
        "Name": "lab", "Metadata": {"Description": "a lab"}, "Endpoints": {"docker": {"Host": format!("tcp://{address}"), "SkipTLSVerify": false}}
    });
    std::fs::write(meta.join("meta.json"), text.to_string()).unwrap();
    std::fs::write(config.path().join("config.json"), r#"{"currentContext": "lab"}"#).unwrap();
    let endpoint = Endpoint::choose(&Settings {
        config_dir: Some(config.path().into()),
        ..Settings::default()
    })
    .unwrap();
    let there = Engine::connect(endpoint).await.unwrap();
    let here = Engine::connect(engine).await.unwrap();
    assert_eq!(there.info().id, here.info().id);
}

async fn connect_error(endpoint: Endpoint) -> String {
    match Engine::connect(endpoint).await {
        Ok(_) => panic!("it connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_unreachable_engine_is_reported_with_a_hint() {
    let at = |address| Endpoint {
        address,
        origin: Origin::DockerHost,
    };
    let error = connect_error(at(Address::Unix("/nonexistent/docker.sock".into()))).await;
    assert!(error.contains("/nonexistent/docker.sock (from DOCKER_HOST)"), "{error}");
    assert!(error.contains("systemctl start docker"), "{error}");
    let error = connect_error(at(Address::parse("tcp://127.0.0.1:1", None).unwrap())).await;
    assert!(
        error.contains("refused") && error.contains("DOCKER_TLS_VERIFY"),
        "{error}"
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    tokio::spawn(async move { while silent.accept().await.is_ok() {} });
    let error = connect_error(at(Address::parse(&format!("tcp://{address}"), None).unwrap())).await;
    assert!(
        error.contains("cannot reach") || error.contains("requesting its version"),
        "{error}"
    );
}

async fn a_broken_connection_is_retried(which: Which) {
    let Some(engine) = which.endpoint() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let proxy = proxy::Breakable::start(&engine, dir.path());
    support::on_endpoint(proxy.endpoint(&engine), async |lab| {
        let base = lab.shell_image().await;
        let mut request = lab.request(&format!("FROM {base}\nRUN echo runs; sleep 3\n"), &[]);
        request.no_cache = true;
        request.attempts = 3;
        let recorder = Arc::new(Recorder::default());
        let lines = recorder.clone();
        let runs = move || {
            lines
                .lines
                .lock()
                .unwrap()
                .iter()
                .filter(|line| *line == "runs")
                .count()
        };
        let solving = tokio::spawn({
            let (engine, recorder) = (lab.engine.clone(), recorder.clone());
            async move { buildkit::solve(&engine.into(), &request, recorder.as_ref(), CancellationToken::new()).await }
        });
        while runs() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        proxy.break_all();
        solving.await.unwrap().unwrap();
        let notes = recorder.notes.lock().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("retrying in"), "{notes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_retried_on_the_hosts_engine() {
    a_broken_connection_is_retried(Which::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_retried_on_a_modern_engine() {
    a_broken_connection_is_retried(Which::Modern).await;
}

/// An engine that reports this API version and supports only `/version` and `/info`.
fn minimal_engine(api: &'static str, dir: &Path) -> Endpoint {
    let socket = dir.join(format!("{api}.sock"));
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let (status, body) = match request.uri().path() {
                    "/version" => (
                        200,
                        format!(r#"{{"Version":"1.2.3","ApiVersion":"{api}","Os":"linux"}}"#),
                    ),
                    "/info" => (200, "{}".to_string()),
                    _ => (404, r#"{"message":"page not found"}"#.to_string()),
                };
                let response = Response::builder()
                    .status(status)
                    .header("Content-Type", "application/json");
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Endpoint {
        address: Address::Unix(socket),
        origin: Origin::Default,
    }
}

#[tokio::test]
async fn an_engine_without_the_needed_api_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let error = connect_error(minimal_engine("1.40", dir.path())).await;
    assert!(error.contains("is 1.2.3 (API 1.40): too old"), "{error}");
    let error = connect_error(minimal_engine("v5", dir.path())).await;
    assert!(error.contains("not a Docker engine"), "{error}");

    let engine = Engine::connect(minimal_engine("1.41", dir.path())).await.unwrap();
    let error = Daemon::from(engine.clone()).platforms().await.unwrap_err().to_string();
    assert!(
        error.contains("does not speak BuildKit") && error.contains("page not found"),
        "{error}"
    );
}
