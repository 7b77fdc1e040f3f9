//! Debian's docker-registry as a process, with requests to fill and to read it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::debian;

pub const USER: &str = "me";
pub const PASSWORD: &str = "correct-horse";
/// Output of `htpasswd -nbB`.
pub const HTPASSWD: &str = "me:$2b$04$OhBB6AYWMrL4UoAO/Uz16OEP8RksQs2iUF1PbF85pdjMSQlH7/pFG";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Debian's registry. `None`, with the reason printed, if it is not available. In CI that is a failure.
pub fn program() -> Option<PathBuf> {
    Some(debian::package("trixie", "docker-registry")?.join("usr/bin/docker-registry"))
}

/// A registry that runs until the value is dropped.
pub struct Registry {
    pub address: String,
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

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Registry {
    pub fn plain(program: &Path) -> Self {
        Self::start(program, &format!("127.0.0.1:{}", free_port()), false)
    }

    /// A registry with TLS and a login.
    pub fn guarded(program: &Path) -> Self {
        Self::start(program, &format!("127.0.0.1:{}", free_port()), true)
    }

    pub fn start(program: &Path, address: &str, guarded: bool) -> Self {
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

    pub fn ca(&self) -> String {
        self.directory.path().join("cert.pem").display().to_string()
    }

    /// Status, media type and content.
    pub fn get(&self, path: &str) -> (u16, String, Vec<u8>) {
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

    pub fn put_blob(&self, repository: &str, media_type: &str, content: &[u8]) -> Value {
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

    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, manifest: &Value) -> Value {
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
    pub fn put_image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Value {
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

pub fn digest(content: &[u8]) -> String {
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
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
