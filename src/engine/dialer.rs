//! An [`Address`] -> duplex byte streams to the engine behind it, one per call.
//!
//! Everything that talks to the engine, the typed API and the connections upgraded to gRPC alike, goes through here.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;

use super::endpoint::{Address, TlsFiles};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of ssh's stderr is kept for the error message.
const SSH_STDERR_LIMIT: usize = 4096;

/// A byte stream to the engine.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens connections to one engine. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    /// Reads the certificates, where the address has any; connects nowhere yet.
    pub fn new(address: &Address) -> io::Result<Self> {
        let tls = match address {
            Address::Tcp {
                host, tls: Some(files), ..
            } => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Some((TlsConnector::from(Arc::new(tls_config(files)?)), name))
            }
            _ => None,
        };
        Ok(Self {
            address: address.clone(),
            tls,
        })
    }

    pub async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.dial_unhurried())
            .await
            .unwrap_or_else(|_| {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {seconds} s"),
                ))
            })
    }

    async fn dial_unhurried(&self) -> io::Result<Box<dyn Duplex>> {
        match &self.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port, .. } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                tcp.set_nodelay(true)?;
                match &self.tls {
                    Some((connector, name)) => Ok(Box::new(connector.connect(name.clone(), tcp).await?)),
                    None => Ok(Box::new(tcp)),
                }
            }
            Address::Ssh {
                user,
                host,
                port,
                socket,
            } => {
                let mut ssh = Command::new("ssh");
                ssh.args(["-o", "ConnectTimeout=30", "-T"]);
                if let Some(user) = user {
                    ssh.args(["-l", user]);
                }
                if let Some(port) = port {
                    ssh.args(["-p", &port.to_string()]);
                }
                ssh.args(["--", host, "docker"]);
                if let Some(socket) = socket {
                    ssh.args(["--host", &format!("unix://{socket}")]);
                }
                ssh.args(["system", "dial-stdio"]);
                Ok(Box::new(SshStream::spawn(ssh)?))
            }
        }
    }
}

fn tls_config(files: &TlsFiles) -> io::Result<rustls::ClientConfig> {
    let bad = |path: &std::path::Path, e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", path.display()));
    let mut roots = rustls::RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(path, &e))? {
                let certificate = certificate.map_err(|e| bad(path, &e))?;
                roots.add(certificate).map_err(|e| bad(path, &e))?;
            }
            if roots.is_empty() {
                return Err(bad(path, &"no certificate in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &files.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| bad(certificate, &e))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|e| bad(certificate, &e))
}

/// `docker system dial-stdio` on the far side, spoken to through ssh's standard streams.
struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Arc<Mutex<String>>,
    heard: bool,
    /// Killed when the stream is dropped.
    _child: Child,
}

impl SshStream {
    fn spawn(mut ssh: Command) -> io::Result<Self> {
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot run ssh: {e}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("ssh came without its standard streams"));
        };
        let said = Arc::new(Mutex::new(String::new()));
        let keep = Arc::clone(&said);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut said = keep.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if said.len() + line.len() < SSH_STDERR_LIMIT {
                    if !said.is_empty() {
                        said.push_str("; ");
                    }
                    said.push_str(line.trim());
                }
            }
        });
        Ok(Self {
            stdin,
            stdout,
            stderr: said,
            heard: false,
            _child: child,
        })
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stdout).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            if buf.filled().len() > before {
                self.heard = true;
            } else if !self.heard && buf.remaining() > 0 {
                // It ended before a word of the engine came: what ssh said is the reason.
                let said = self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let reason = match said.is_empty() {
                    true => "ssh ended without a word from the engine".to_string(),
                    false => format!("ssh: {said}"),
                };
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
            }
        }
        polled
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
