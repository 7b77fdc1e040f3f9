//! Copies from a real registry (Debian's docker-registry) to another one with TLS and a login.

#[path = "../../tests/support/debian.rs"]
mod debian;

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const USER: &str = "me";
const PASSWORD: &str = "correct-horse";
/// Output of `htpasswd -nbB`.
const HTPASSWD: &str = "me:$2b$04$OhBB6AYWMrL4UoAO/Uz16OEP8RksQs2iUF1PbF85pdjMSQlH7/pFG";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Debian's registry. `None`, with the reason printed, if it is not available. In CI that is a failure.
fn program() -> Option<PathBuf> {
    Some(debian::package("trixie", "docker-registry")?.join("usr/bin/docker-registry"))
}

/// A registry that runs until the value is dropped.
struct Registry {
    address: String,
    /// For the test's own requests.
    agent: ureq::Agent,
    base: String,
    directory: tempfile::TempDir,
    process: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Registry {
    fn plain(program: &Path) -> Self {
        Self::start(program, &format!("127.0.0.1:{}", free_port()), false)
    }

    /// A registry with TLS and a login.
    fn guarded(program: &Path) -> Self {
        Self::start(program, &format!("127.0.0.1:{}", free_port()), true)
    }

    fn start(program: &Path, address: &str, guarded: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": at("data")}, "delete": {"enabled": true}},
            "http": {"addr": address},
        });
        let mut roots = Vec::new();
        if guarded {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_string()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            fs::write(at("cert.pem"), certificate.pem()).unwrap();
            fs::write(at("key.pem"), key.serialize_pem()).unwrap();
            fs::write(at("htpasswd"), HTPASSWD).unwrap();
            config["http"]["tls"] = json!({"certificate": at("cert.pem"), "key": at("key.pem")});
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": at("htpasswd")}});
            roots.push(
                ureq::tls::Certificate::from_pem(certificate.pem().as_bytes())
                    .unwrap()
                    .to_owned(),
            );
        }
        // JSON is YAML.
        fs::write(at("config.yml"), config.to_string()).unwrap();
        let process = Command::new(program)
            .arg("serve")
            .arg(at("config.yml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(at("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .build();
        Self {
            address: address.to_string(),
            agent: agent.new_agent(),
            base: format!("{}://{address}", if guarded { "https" } else { "http" }),
            directory,
            process,
        }
    }

    fn ca(&self) -> String {
        self.directory.path().join("cert.pem").display().to_string()
    }

    /// Status, media type and content.
    fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
        use base64::Engine as _;
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let mut response = self
            .agent
            .get(format!("{}/v2/{path}", self.base))
            .header("Authorization", format!("Basic {login}"))
            .header("Accept", format!("{INDEX}, {MANIFEST}, {DOCKER_MANIFEST}"))
            .call()
            .unwrap();
        let media_type = response
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_string());
        let content = response.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
        (response.status().as_u16(), media_type.unwrap_or_default(), content)
    }

    fn put_blob(&self, repository: &str, media_type: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        let begun = self
            .agent
            .post(format!("{}/v2/{repository}/blobs/uploads/", self.base))
            .send_empty()
            .unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_string();
        let put = self
            .agent
            .put(format!("{location}&digest={digest}"))
            .send(content)
            .unwrap();
        assert_eq!(put.status(), 201);
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn put_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, manifest: &Value) -> Value {
        // Unusual white space: the copy must keep the bytes, not just the meaning.
        let content = serde_json::to_string_pretty(manifest).unwrap() + "\n";
        let digest = digest(content.as_bytes());
        let url = format!("{}/v2/{repository}/manifests/{}", self.base, tag.unwrap_or(&digest));
        let mut put = self
            .agent
            .put(url)
            .header("Content-Type", media_type)
            .send(content.as_bytes())
            .unwrap();
        assert_eq!(put.status(), 201, "{}", put.body_mut().read_to_string().unwrap());
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    /// An index of two platforms, with an OCI and a Docker manifest, and an attestation in BuildKit's form.
    fn put_image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Value {
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.put_blob(repository, LAYER, layer))
            .collect();
        let mut manifests = Vec::new();
        for (architecture, media_type) in [("amd64", MANIFEST), ("arm64", DOCKER_MANIFEST), ("unknown", MANIFEST)] {
            let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "tag": tag});
            let config = self.put_blob(repository, CONFIG, config.to_string().as_bytes());
            let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
            let mut manifest = self.put_manifest(repository, None, media_type, &manifest);
            manifest["platform"] = json!({"os": "linux", "architecture": architecture});
            manifests.push(manifest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": {"a": "ü"}});
        self.put_manifest(repository, Some(tag), INDEX, &index)
    }
}

fn digest(content: &[u8]) -> String {
    let value = ring::digest::digest(&ring::digest::SHA256, content);
    format!(
        "sha256:{}",
        value
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

/// Incompressible bytes, the same in each run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn docker_config(directory: &Path, logins: &[(&str, &str)]) -> PathBuf {
    use base64::Engine as _;
    let auths: HashMap<&str, Value> = logins
        .iter()
        .map(|(host, password)| {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
            (*host, json!({"auth": auth}))
        })
        .collect();
    let file = directory.join("config.json");
    fs::write(&file, json!({"auths": auths}).to_string()).unwrap();
    file
}

fn sync(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .arg("image-repo-sync")
        .args(arguments);
    command
}

fn succeeds(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(mut command: Command, reason: &str) {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains(reason),
        "{reason:?} is not in {}",
        stderr(&output)
    );
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every manifest and blob of the index is the same in both registries.
fn assert_same(from: &Registry, source: &str, to: &Registry, destination: &str, reference: &str) {
    let (status, media_type, content) = from.get(&format!("{source}/manifests/{reference}"));
    assert_eq!(status, 200, "{source}:{reference}");
    let there = to.get(&format!("{destination}/manifests/{reference}"));
    assert_eq!(there, (200, media_type, content.clone()), "{destination}:{reference}");
    let document: Value = serde_json::from_slice(&content).unwrap();
    for manifest in document["manifests"].as_array().into_iter().flatten() {
        assert_same(from, source, to, destination, manifest["digest"].as_str().unwrap());
    }
    for blob in document["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(document.get("config"))
    {
        let digest = blob["digest"].as_str().unwrap();
        let (_, _, content) = from.get(&format!("{source}/blobs/{digest}"));
        let there = to.get(&format!("{destination}/blobs/{digest}"));
        assert!(there.0 == 200 && there.2 == content, "{destination} {digest}");
    }
}

#[test]
fn all_platforms_and_signatures_are_copied_unchanged() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::guarded(&program));
    let index = from.put_image("team/app", "1.0", &[&noise(1, 3_000_000), &noise(2, 10)]);
    let digest = index["digest"].as_str().unwrap();
    // A signature in cosign 2's scheme, and one in OCI 1.1's scheme for registries without the referrers API.
    let payload = from.put_blob(
        "team/app",
        "application/vnd.dev.cosign.simplesigning.v1+json",
        b"signed",
    );
    let config = from.put_blob("team/app", CONFIG, b"{}");
    let signature = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [payload]});
    let tag = digest.replace(':', "-");
    from.put_manifest("team/app", Some(&format!("{tag}.sig")), MANIFEST, &signature);
    let mut referrer = signature.clone();
    referrer["subject"] = index.clone();
    referrer["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
    let mut referrer = from.put_manifest("team/app", None, MANIFEST, &referrer);
    referrer["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]});
    from.put_manifest("team/app", Some(&tag), INDEX, &list);

    let directory = tempfile::tempdir().unwrap();
    let config = docker_config(directory.path(), &[(&to.address, PASSWORD)])
        .display()
        .to_string();
    let image = format!("{}/team/app:1.0=mirror/app", from.address);
    let arguments = [
        image.as_str(),
        "--local-repo",
        &to.address,
        "--docker-config",
        &config,
        "--ca-file",
        &to.ca(),
    ]
    .map(str::to_string);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = &succeeds(sync(&arguments))[0];
    let copied = &result["copied"];
    assert_eq!(copied["digest"], digest, "{result}");
    assert_eq!(copied["companions"], 2, "{result}");
    assert_same(&from, "team/app", &to, "mirror/app", "1.0");
    assert_same(&from, "team/app", &to, "mirror/app", &format!("{tag}.sig"));
    let (status, _, list) = to.get(&format!("mirror/app/manifests/{tag}"));
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!((status, &list["manifests"]), (200, &json!([referrer])));
    assert_same(
        &from,
        "team/app",
        &to,
        "mirror/app",
        referrer["digest"].as_str().unwrap(),
    );

    // A second run sends nothing.
    let result = &succeeds(sync(&arguments))[0]["copied"];
    assert_eq!(
        (&result["manifests"], &result["uploaded"], &result["companions"]),
        (&json!(0), &json!(0), &json!(2)),
        "{result}"
    );

    // The tag moves, and so does the mirror's. The layers are present.
    from.put_image("team/app", "1.0", &[&noise(1, 3_000_000), &noise(3, 10)]);
    let result = &succeeds(sync(&arguments))[0]["copied"];
    assert_eq!(
        (&result["uploaded"], &result["present"]),
        (&json!(1), &json!(8)),
        "{result}"
    );
    assert_same(&from, "team/app", &to, "mirror/app", "1.0");
}

#[test]
fn blobs_in_another_repository_are_mounted() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    let shared = noise(4, 100_000);
    from.put_image("a", "1", &[&shared]);
    from.put_image("b", "1", &[&shared]);
    let list = format!("{0}/a:1=a, {0}/b:1=b,,{0}/a:1=a", from.address);
    let mut command = sync(&[]);
    command.env("IMAGE_SYNC_LIST", &list).env("LOCAL_REPO", &to.address);
    let results = succeeds(command);
    assert_eq!(results.as_array().unwrap().len(), 2, "{results}");
    assert_eq!(results[0]["copied"]["mounted"], 0, "{results}");
    assert_eq!(
        (&results[1]["copied"]["mounted"], &results[1]["copied"]["uploaded"]),
        (&json!(4), &json!(0)),
        "{results}"
    );
    assert_same(&from, "b", &to, "b", "1");
    // Within one registry no blob passes through this program.
    let results = succeeds(sync(&[
        &format!("{}/a:1=c", from.address),
        "--local-repo",
        &from.address,
    ]));
    assert_eq!(results[0]["copied"]["uploaded"], 0, "{results}");
    assert_same(&from, "a", &from, "c", "1");
}

/// OpenStack-Helm's environment and names: LOCAL_REPO/IMAGE, as with `docker tag`.
#[test]
fn the_environment_of_openstack_helms_job_is_supported() {
    let Some(program) = program() else { return };
    // Names in the list have no port, so the registry uses port 80, on a loopback address of this test.
    let host = format!(
        "127.{}.{}.7",
        std::process::id() % 250 + 2,
        std::process::id() / 250 % 250
    );
    if TcpListener::bind(format!("{host}:80")).is_err() {
        assert!(std::env::var_os("CI").is_none(), "cannot listen on port 80");
        eprintln!("SKIPPED: cannot listen on port 80");
        return;
    }
    let (from, to) = (
        Registry::start(&program, &format!("{host}:80"), false),
        Registry::plain(&program),
    );
    let index = from.put_image("team/app", "1", &[b"layer"]);
    let mut command = sync(&[]);
    command
        .env("IMAGE_SYNC_LIST", format!("{host}/team/app:1,"))
        .env("LOCAL_REPO", format!("{}/", to.address));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!(
        "{}/{host}/team/app:1 {} copied 4 manifests, ",
        to.address,
        index["digest"].as_str().unwrap()
    );
    assert!(line.starts_with(&expected), "{line}");
    assert_same(&from, "team/app", &to, &format!("{host}/team/app"), "1");
    // A reference with only a digest, and a missing image next to an existing one.
    let digest = index["digest"].as_str().unwrap();
    let mut command = sync(&[]);
    command.env("LOCAL_REPO", format!("{}/cache", to.address));
    command.env(
        "IMAGE_SYNC_LIST",
        format!("{host}/team/none:1,{host}/team/app@{digest}"),
    );
    fails(command, "1 of 2 images were not copied");
    assert_same(&from, "team/app", &to, &format!("cache/{host}/team/app"), digest);
}

#[test]
fn authentication_errors_name_the_cause() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::guarded(&program));
    from.put_image("a", "1", &[b"layer"]);
    let image = format!("{}/a:1=a", from.address);
    let directory = tempfile::tempdir().unwrap();
    let arguments = [image.as_str(), "--local-repo", &to.address, "--ca-file", &to.ca()].map(str::to_string);
    let with_ca: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fails(
        sync(&with_ca),
        "the registry requires a login, but the Docker configuration has none for it",
    );
    let wrong = docker_config(directory.path(), &[(&to.address, "wrong")]);
    let mut command = sync(&with_ca);
    command.env("DOCKER_CONFIG", directory.path());
    fails(
        command,
        "status 401 (UNAUTHORIZED: authentication required) (with the login from the Docker configuration)",
    );
    docker_config(directory.path(), &[(&to.address, PASSWORD)]);
    let wrong = wrong.display().to_string();
    fails(
        sync(&[&image, "--local-repo", &to.address, "--docker-config", &wrong]),
        "add its CA with --ca-file or SSL_CERT_FILE",
    );
    let mut command = sync(&[&image, "--local-repo", &to.address, "--docker-config", &wrong]);
    command.env("SSL_CERT_FILE", to.ca());
    succeeds(command);
    fails(
        sync(&[&image, "--local-repo", &to.address, "--docker-config", "/nonexistent"]),
        "there is no config.json",
    );
    fails(
        sync(&["", "--local-repo", &to.address]),
        "the list (IMAGE_SYNC_LIST) is empty",
    );
    fails(sync(&["h:1/a:1", "--local-repo", &to.address]), "IMAGE=NAME");
}

/// A plain HTTP proxy in front of a registry, with the faults of real registries and networks.
struct Proxy {
    address: String,
    /// The token requests.
    scopes: Arc<Mutex<Vec<String>>>,
    faults: Arc<AtomicUsize>,
}

/// Every fifth request gets no response, status 429 or half a response. With `token`, every request needs it.
fn proxy(upstream: &str, token: Option<&'static str>, faulty: bool) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let front = Proxy {
        address: address.clone(),
        scopes: Arc::default(),
        faults: Arc::default(),
    };
    let (upstream, scopes, faults) = (upstream.to_string(), front.scopes.clone(), front.faults.clone());
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            let (upstream, address, scopes, faults) =
                (upstream.clone(), address.clone(), scopes.clone(), faults.clone());
            std::thread::spawn(move || {
                let _ = answer(client, number, &upstream, &address, token, faulty, &scopes, &faults);
            });
        }
    });
    front
}

#[allow(clippy::too_many_arguments)]
fn answer(
    mut client: TcpStream,
    number: usize,
    upstream: &str,
    address: &str,
    token: Option<&str>,
    faulty: bool,
    scopes: &Mutex<Vec<String>>,
    faults: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_string();
    if path.starts_with("/token") {
        scopes.lock().unwrap().push(path);
        let body = json!({"access_token": token}).to_string();
        return write!(
            client,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    if let Some(token) = token
        && !text
            .to_ascii_lowercase()
            .contains(&format!("authorization: bearer {token}\r\n"))
    {
        return write!(
            client,
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\
             WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"a, b\",scope=\"x\"\r\n\r\n"
        );
    }
    let fault = (faulty && number % 5 == 4).then(|| faults.fetch_add(1, Ordering::Relaxed) % 3);
    match fault {
        Some(0) => return client.shutdown(Shutdown::Both),
        Some(1) => {
            let answer =
                "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
            return client.write_all(answer.as_bytes());
        }
        _ => {}
    }
    let mut server = TcpStream::connect(upstream)?;
    let closing = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(closing.as_bytes())?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    // Half a response: only its first 100 bytes are sent.
    let most = if fault.is_some() { 100 } else { u64::MAX };
    std::io::copy(&mut server.take(most), &mut client)?;
    client.shutdown(Shutdown::Both)
}

#[test]
fn faults_are_retried() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    from.put_image("a", "1", &[&noise(5, 300_000), &noise(6, 2_000_000)]);
    let (source, destination) = (proxy(&from.address, None, true), proxy(&to.address, None, true));
    succeeds(sync(&[
        &format!("{}/a:1=a", source.address),
        "--local-repo",
        &destination.address,
    ]));
    assert_same(&from, "a", &to, "a", "1");
    for front in [&source, &destination] {
        let faults = front.faults.load(Ordering::Relaxed);
        assert!(faults >= 3, "only {faults} faults");
    }
}

#[test]
fn tokens_have_the_scope_of_the_request() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    from.put_image("a", "1", &[b"layer"]);
    let (source, destination) = (
        proxy(&from.address, Some("x.y.z"), false),
        proxy(&to.address, Some("p-q"), false),
    );
    succeeds(sync(&[
        &format!("{}/a:1=a", source.address),
        "--local-repo",
        &destination.address,
    ]));
    assert_same(&from, "a", &to, "a", "1");
    let asked = |front: &Proxy| {
        front
            .scopes
            .lock()
            .unwrap()
            .join("\n")
            .replace("%3A", ":")
            .replace("%2C", ",")
    };
    assert!(asked(&source).contains("repository:a:pull"), "{}", asked(&source));
    assert!(!asked(&source).contains("push"), "{}", asked(&source));
    assert!(
        asked(&destination).contains("repository:a:pull,push"),
        "{}",
        asked(&destination)
    );
}

/// A 300 MB layer passes through a process with an address space of 120 MB, including its code.
#[test]
fn large_layers_need_little_memory() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    let index = from.put_image("a", "1", &[&noise(7, 300_000_000)]);
    let mut command = Command::new("prlimit");
    command
        .args(["--as=120000000", env!("CARGO_BIN_EXE_obgp-runtime"), "image-repo-sync"])
        .env("HOME", "/nonexistent");
    command.args([&format!("{}/a:1=a", from.address), "--local-repo", &to.address]);
    let result = succeeds(command);
    assert_eq!(result[0]["copied"]["digest"], index["digest"], "{result}");
    assert_same(&from, "a", &to, "a", "1");
}
