//! The way to a registry: TLS with authorities and certificates of one's own, plain http, proxies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::MIB;
use super::support::distribution::{Distribution, Login, Tls};
use super::support::tool::Tool;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn own_authority_and_client_certificate() {
    let registry_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = certificates(registry_dir.path());
    let tls = Tls {
        certificate: files("server.pem"),
        key: files("server.key"),
        client_ca: Some(files("ca.pem")),
    };
    let registry = Distribution::start_with(Login::Nobody, Some(tls));
    let to = format!("{}/a/b:t", registry.host());
    let without = Tool::new("");
    without.project.make("t", 16, MIB);
    let said = without.failure(1, &["push", &without.image("t"), &to]).await;
    assert!(said.contains("--registry-ca"), "{said}");
    let ca = files("ca.pem");
    let said = without
        .failure(
            1,
            &["push", &without.image("t"), &to, "--registry-ca", ca.to_str().unwrap()],
        )
        .await;
    assert!(said.contains("client certificate"), "{said}");
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

/// zuul-jobs' buildset registry serves such a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_be_its_own_authority_if_it_is_named() {
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
        (certificate, Distribution::start_with(Login::Nobody, Some(tls)))
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
        let said = tool
            .failure(1, &["push", &image, &to(registry), "--registry-ca", &ca])
            .await;
        assert!(said.contains("--registry-ca"), "{said}");
        assert!(!said.contains("retrying"), "{said}");
    }
    let said = tool.failure(1, &["push", &image, &to(&registry)]).await;
    assert!(said.contains("--registry-ca"), "{said}");
    // Patience would take half a minute each time.
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
    tool.json(&["push", &image, &to(&registry), "--registry-ca", &ca(&certificate)])
        .await;
    let configured = Tool::new(&format!("[[registries]]\nhost = \"127.0.0.1:*\"\nca = {certificate:?}"));
    assert_eq!(configured.json(&["verify", &to(&registry)]).await["passed"], true);
}

/// An authority, and what it signed for a server on loopback and for a client.
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
async fn plain_http_is_for_loopback_or_when_said() {
    let tool = Tool::new("");
    tool.project.make("t", 17, MIB);
    let registry = Distribution::start();
    // A name that is this machine's and not loopback's.
    let mut hostname = String::from_utf8(Command::new("hostname").arg("-I").output().unwrap().stdout).unwrap();
    hostname = hostname.split_whitespace().next().unwrap_or_default().to_string();
    if hostname.is_empty() || hostname.starts_with("127.") {
        eprintln!("SKIPPED: this machine has no address but loopback's");
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
    let said = tool.failure(1, &["inspect", &to]).await;
    assert!(said.contains("--plain-http"), "{said}");
    tool.json(&["push", &tool.image("t"), &to, "--plain-http"]).await;
}

/// Takes `CONNECT` to a name that only it knows, and says what it was asked.
async fn connect_proxy(upstream: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://me:secret@{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let asked = kept.clone();
            tokio::spawn(async move {
                let mut client = tokio::io::BufReader::new(client);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if client.read_line(&mut head).await.unwrap() == 0 {
                        return;
                    }
                }
                let known = head.starts_with("CONNECT registry.example:5000 ");
                asked.lock().unwrap().push(head);
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
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_takes_it_where_the_name_is_known() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = certificates(dir.path());
    let tls = Tls {
        certificate: files("server.pem"),
        key: files("server.key"),
        client_ca: None,
    };
    let registry = Distribution::start_with(Login::Nobody, Some(tls));
    let (proxy, asked) = connect_proxy(registry.address()).await;
    let mut tool = Tool::new(&format!("[[registries]]\nhost = \"*\"\nca = {:?}", files("ca.pem")));
    tool.project.make("t", 19, MIB);
    let image = tool.image("t");
    let to = "registry.example:5000/a/b:t";
    tool.environment.push(("HTTPS_PROXY".into(), proxy.clone()));
    tool.json(&["push", &image, to]).await;
    assert_eq!(tool.json(&["verify", to]).await["passed"], true);
    {
        let asked = asked.lock().unwrap();
        assert!(!asked.is_empty());
        // Base64 of me:secret.
        assert!(
            asked.iter().all(|head| head.contains("Basic bWU6c2VjcmV0")),
            "{asked:?}"
        );
    }
    // What is not to go through it does not: loopback, and what NO_PROXY says.
    let before = asked.lock().unwrap().len();
    tool.json(&["push", &image, &format!("{}/a/b:t", registry.host())])
        .await;
    assert_eq!(asked.lock().unwrap().len(), before);
    tool.environment.push(("NO_PROXY".into(), "registry.example".into()));
    let said = tool.failure(1, &["inspect", to]).await;
    assert!(said.contains("registry.example:5000"), "{said}");
    assert_eq!(asked.lock().unwrap().len(), before);
    // A proxy that is not there is named, its password is not.
    tool.environment = vec![("HTTPS_PROXY".into(), "http://me:secret@127.0.0.1:1".into())];
    let said = tool.failure(1, &["inspect", to]).await;
    assert!(!said.contains("secret"), "{said}");
}
