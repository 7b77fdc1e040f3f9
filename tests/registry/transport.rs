//! Tests connections to a registry: private CAs, client certificates, plain HTTP and proxies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::MIB;
use super::support::distribution::{Distribution, Login, Tls};
use super::support::habits::{Habit, HabitRegistry};
use super::support::tool::Tool;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_and_a_client_certificate_are_used() {
    let registry_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = certificates(registry_dir.path());
    let tls = Tls {
        certificate: files("server.pem"),
        key: files("server.key"),
        client_ca: Some(files("ca.pem")),
    };
    let registry = Distribution::start_with(Login::None, Some(tls));
    let to = format!("{}/a/b:t", registry.host());
    let without = Tool::new("");
    without.project.make("t", 16, MIB);
    let error = without.failure(1, &["push", &without.image("t"), &to]).await;
    assert!(error.contains("--registry-ca"), "{error}");
    let ca = files("ca.pem");
    let error = without
        .failure(
            1,
            &["push", &without.image("t"), &to, "--registry-ca", ca.to_str().unwrap()],
        )
        .await;
    assert!(error.contains("client certificate"), "{error}");
    let tool = Tool::new(&format!(
        "[[registries]]\nhost = \"127.0.0.1:*\"\nca = {:?}\nclient-cert = {:?}\nclient-key = {:?}",
        ca,
        files("client.pem"),
        files("client.key")
    ));
    tool.project.make("t", 16, MIB);
    tool.json(&["push", &tool.image("t"), &to]).await;
    assert_eq!(tool.json(&["verify", &to]).await["passed"], true);
}

/// The buildset registry of zuul-jobs has such a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_accepted_when_configured() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let make = |name: &str, host: &str| {
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let (certificate, secret) = (
            dir.path().join(format!("{name}.pem")),
            dir.path().join(format!("{name}.key")),
        );
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        let tls = Tls {
            certificate: certificate.clone(),
            key: secret,
            client_ca: None,
        };
        (certificate, Distribution::start_with(Login::None, Some(tls)))
    };
    let tool = Tool::new("");
    tool.project.make("t", 18, MIB);
    let image = tool.image("t");
    let (certificate, registry) = make("own", "127.0.0.1");
    let (elsewhere, misnamed) = make("elsewhere", "registry.example");
    let to = |registry: &Distribution| format!("{}/a/b:t", registry.host());
    let started = std::time::Instant::now();
    let ca = |path: &Path| path.to_str().unwrap().to_string();
    for (registry, ca) in [(&registry, ca(&elsewhere)), (&misnamed, ca(&elsewhere))] {
        let error = tool
            .failure(1, &["push", &image, &to(registry), "--registry-ca", &ca])
            .await;
        assert!(error.contains("--registry-ca"), "{error}");
        assert!(!error.contains("retrying"), "{error}");
    }
    let error = tool.failure(1, &["push", &image, &to(&registry)]).await;
    assert!(error.contains("--registry-ca"), "{error}");
    // Retries would take half a minute for each push.
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
    tool.json(&["push", &image, &to(&registry), "--registry-ca", &ca(&certificate)])
        .await;
    let configured = Tool::new(&format!("[[registries]]\nhost = \"127.0.0.1:*\"\nca = {certificate:?}"));
    assert_eq!(configured.json(&["verify", &to(&registry)]).await["passed"], true);
}

/// Makes a CA, a server certificate for loopback and a client certificate. Returns the path of a file by name.
fn certificates(dir: &Path) -> impl Fn(&str) -> PathBuf + use<> {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "tests");
    write("ca.pem", params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_string(), "registry.example".to_string()]).unwrap();
        params.extended_key_usages = vec![usage];
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    let dir = dir.to_path_buf();
    move |name| dir.join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_beyond_loopback_needs_a_flag() {
    let tool = Tool::new("");
    tool.project.make("t", 17, MIB);
    let registry = Distribution::start();
    // An address of this host that is not loopback.
    let mut hostname = String::from_utf8(Command::new("hostname").arg("-I").output().unwrap().stdout).unwrap();
    hostname = hostname.split_whitespace().next().unwrap_or_default().to_string();
    if hostname.is_empty() || hostname.starts_with("127.") {
        eprintln!("SKIPPED: this host has only loopback addresses");
        return;
    }
    let forwarder = tokio::net::TcpListener::bind((hostname.as_str(), 0)).await.unwrap();
    let to = format!("{}/a/b:t", forwarder.local_addr().unwrap());
    let upstream = registry.address();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = forwarder.accept().await {
            tokio::spawn(async move {
                let mut registry = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut registry).await;
            });
        }
    });
    let error = tool.failure(1, &["inspect", &to]).await;
    assert!(error.contains("--plain-http"), "{error}");
    tool.json(&["push", &tool.image("t"), &to, "--plain-http"]).await;
}

/// A proxy that accepts `CONNECT` to a name that only it resolves. Returns its URL and the request heads.
async fn connect_proxy(upstream: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://me:secret@{}", listener.local_addr().unwrap());
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = requests.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let requests = shared.clone();
            tokio::spawn(async move {
                let mut client = tokio::io::BufReader::new(client);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if client.read_line(&mut head).await.unwrap() == 0 {
                        return;
                    }
                }
                let known = head.starts_with("CONNECT registry.example:5000 ");
                requests.lock().unwrap().push(head);
                if !known {
                    let _ = client
                        .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                        .await;
                    return;
                }
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut registry = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut registry).await;
            });
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_resolves_the_name_of_the_registry() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = certificates(dir.path());
    let tls = Tls {
        certificate: files("server.pem"),
        key: files("server.key"),
        client_ca: None,
    };
    let registry = Distribution::start_with(Login::None, Some(tls));
    let (proxy, requests) = connect_proxy(registry.address()).await;
    let mut tool = Tool::new(&format!("[[registries]]\nhost = \"*\"\nca = {:?}", files("ca.pem")));
    tool.project.make("t", 19, MIB);
    let image = tool.image("t");
    let to = "registry.example:5000/a/b:t";
    tool.environment.push(("HTTPS_PROXY".into(), proxy.clone()));
    tool.json(&["push", &image, to]).await;
    assert_eq!(tool.json(&["verify", to]).await["passed"], true);
    {
        let requests = requests.lock().unwrap();
        assert!(!requests.is_empty());
        // Base64 of me:secret.
        assert!(
            requests.iter().all(|head| head.contains("Basic bWU6c2VjcmV0")),
            "{requests:?}"
        );
    }
    // Loopback and the names in NO_PROXY bypass the proxy.
    let before = requests.lock().unwrap().len();
    tool.json(&["push", &image, &format!("{}/a/b:t", registry.host())])
        .await;
    assert_eq!(requests.lock().unwrap().len(), before);
    tool.environment.push(("NO_PROXY".into(), "registry.example".into()));
    let error = tool.failure(1, &["inspect", to]).await;
    assert!(error.contains("registry.example:5000"), "{error}");
    assert_eq!(requests.lock().unwrap().len(), before);
    // The error about an unreachable proxy hides the password.
    tool.environment = vec![("HTTPS_PROXY".into(), "http://me:secret@127.0.0.1:1".into())];
    let error = tool.failure(1, &["inspect", to]).await;
    assert!(!error.contains("secret"), "{error}");
}

/// Go's server answers plain HTTP with an error; others close the connection, or send an alert of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn plain_http_to_a_server_with_tls_names_the_flag_to_leave_out() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = certificates(dir.path());
    let registry = Distribution::start_with(
        Login::None,
        Some(Tls {
            certificate: files("server.pem"),
            key: files("server.key"),
            client_ca: None,
        }),
    );
    let config = super::support::tls::Certificates::make(dir.path()).server;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rustls = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(tcp).await.map(drop) });
        }
    });
    let tool = Tool::new("");
    tool.project.make("t", 16, 4096);
    for host in [registry.host(), rustls] {
        let to = format!("{host}/a/b:t");
        let error = tool.failure(1, &["push", &tool.image("t"), &to, "--plain-http"]).await;
        assert!(
            error.contains("help: it speaks TLS: leave out --plain-http"),
            "{host}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_registry_is_named_as_one() {
    let registry = HabitRegistry::start([Habit::ReadOnly]).await;
    let tool = Tool::new("");
    tool.project.make("t", 16, 4096);
    let to = format!("{}/a/b:t", registry.host());
    let error = tool.failure(1, &["push", &tool.image("t"), &to]).await;
    assert!(
        error.contains("405") && error.contains("it may be read-only"),
        "{error}"
    );
}
