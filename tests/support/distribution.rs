//! Runs docker-registry from Debian's package. A test can kill and restart it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const USER: &str = "me";
pub const PASSWORD: &str = "correct-horse";
/// [`PASSWORD`] as bcrypt, the only hash that docker-registry accepts.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuZ0Fx87Pb/Aqb0E90lfvCwzXnaFKUHpS\n";

fn program() -> PathBuf {
    let root = super::debian::package("trixie", "docker-registry").expect("docker-registry is missing, see above");
    root.join("usr/bin/docker-registry")
}

/// The authentication that the registry requires.
#[derive(Default)]
pub enum Login {
    #[default]
    None,
    /// [`USER`] with [`PASSWORD`].
    Basic,
    /// Tokens of this realm, signed with the key of this certificate.
    Token { realm: String, certificate: PathBuf },
}

/// Certificate and key of the registry, and the CA for client certificates.
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

pub struct Distribution {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Distribution {
    pub fn start() -> Self {
        Self::start_with(Login::None, None)
    }

    /// Listens on every address, so that containers reach the registry.
    pub fn start_for_containers() -> Self {
        Self::start_for_containers_with(Login::None)
    }

    pub fn start_for_containers_with(login: Login) -> Self {
        Self::start_at("0.0.0.0", login, None)
    }

    pub fn start_with(login: Login, tls: Option<Tls>) -> Self {
        Self::start_at("127.0.0.1", login, tls)
    }

    /// As installed, without `storage.delete.enabled`.
    pub fn start_without_deletion() -> Self {
        let mut registry = Self::start();
        let config = registry.dir.path().join("config.yml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, text.replace("enabled: true", "enabled: false")).unwrap();
        registry.restart();
        registry
    }

    fn start_at(ip: &str, login: Login, tls: Option<Tls>) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // If another process takes this free port first, the start fails with a clear message.
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            dir.path().join("data").display()
        );
        // A constant secret lets uploads continue after a restart.
        config += &format!("http:\n  addr: {address}\n  secret: constant\n");
        if let Some(tls) = tls {
            config += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                tls.certificate.display(),
                tls.key.display()
            );
            if let Some(ca) = tls.client_ca {
                config += &format!("    clientcas: [{}]\n", ca.display());
            }
        }
        match login {
            Login::None => {}
            Login::Basic => {
                let htpasswd = dir.path().join("htpasswd");
                std::fs::write(&htpasswd, HTPASSWD).unwrap();
                config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
            }
            Login::Token { realm, certificate } => {
                config += &format!(
                    "auth: {{token: {{realm: \"{realm}\", service: registry, issuer: tests, rootcertbundle: {}}}}}\n",
                    certificate.display()
                );
            }
        }
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut registry = Self {
            dir,
            address,
            child: None,
        };
        registry.restart();
        registry
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The storage directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Kills the registry with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(program())
            .arg("serve")
            .arg(self.dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "docker-registry does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The file of a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir
            .path()
            .join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.kill();
    }
}
