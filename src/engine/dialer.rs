//! Opens byte streams to the engine at an [`Address`], one per call.
//!
//! Both the typed API and the connections upgraded to gRPC use it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::endpoint::TlsFiles;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of ssh's stderr that are read for the error message.
const SSH_STDERR_LIMIT: u64 = 4096;

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
    /// Reads the certificates of the address, if any; does not connect yet.
    pub fn new(address: &Address) -> io::Result<Self> {
        Self::with_protocols(address, Vec::new())
    }

    /// For a gRPC-only server, which requires ALPN for HTTP/2.
    pub(crate) fn for_grpc(address: &Address) -> io::Result<Self> {
        Self::with_protocols(address, vec![b"h2".to_vec()])
    }

    fn with_protocols(address: &Address, protocols: Vec<Vec<u8>>) -> io::Result<Self> {
        let tls = match address {
            Address::Tcp {
                host, tls: Some(files), ..
            } => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let mut config = tls_config(files)?;
                config.alpn_protocols = protocols;
                Some((TlsConnector::from(Arc::new(config)), name))
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
                let tcp = connect(host, *port).await?;
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

/// `localhost` is both loopback addresses (RFC 6761, section 6.3), whichever of them the system's resolver knows.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    if host.eq_ignore_ascii_case("localhost") {
        let both: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        return TcpStream::connect(&both[..]).await;
    }
    TcpStream::connect((host, port)).await
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
                return Err(bad(path, &"it contains no certificate"));
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

/// `docker system dial-stdio` on the remote host, over ssh's stdin and stdout.
struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stage: SshStage,
    /// Killed when the stream is dropped.
    _child: Child,
}

enum SshStage {
    /// No byte has arrived from the engine. If the stream ends, the future gives the reason.
    Silent(BoxFuture<'static, String>),
    Heard,
    Failed(String),
}

impl SshStream {
    fn spawn(mut ssh: Command) -> io::Result<Self> {
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("running ssh: {e}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("ssh has no standard streams"));
        };
        Ok(Self {
            stdin,
            stdout,
            stage: SshStage::Silent(Box::pin(why_ssh_failed(tokio::spawn(last_line(stderr))))),
            _child: child,
        })
    }

    /// ssh's message, if no byte has arrived: an end of the stream, or a pipe that broke during a write, is less
    /// specific.
    fn poll_failure(&mut self, error: io::Error, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let SshStage::Silent(reason) = &mut self.stage {
            self.stage = SshStage::Failed(ready!(reason.as_mut().poll(cx)));
        }
        Poll::Ready(match &self.stage {
            SshStage::Failed(reason) => io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone()),
            SshStage::Silent(_) | SshStage::Heard => error,
        })
    }

    fn poll_written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) => self.poll_failure(error, cx).map(Err),
            other => other,
        }
    }
}

/// Reads to the end, so that ssh never blocks on its stderr. The last line is the reason; earlier lines are banners.
async fn last_line(stderr: ChildStderr) -> String {
    let mut lines = BufReader::new(stderr.take(SSH_STDERR_LIMIT)).lines();
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if !line.trim().is_empty() {
            last = line.trim().to_string();
        }
    }
    let mut rest = lines.into_inner().into_inner().into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    last
}

async fn why_ssh_failed(line: JoinHandle<String>) -> String {
    // A connection master in the background may keep stderr open.
    let line = tokio::time::timeout(Duration::from_secs(2), line).await;
    match line {
        // ssh's own messages start with its name.
        Ok(Ok(line)) if line.starts_with("ssh: ") => line,
        Ok(Ok(line)) if !line.is_empty() => format!("ssh: {line}"),
        _ => "ssh exited before the engine answered".to_string(),
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stdout).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.stage = SshStage::Heard;
        } else if !matches!(this.stage, SshStage::Heard) {
            return this.poll_failure(io::ErrorKind::UnexpectedEof.into(), cx).map(Err);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stdin).poll_write(cx, buf);
        self.poll_written(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stdin).poll_flush(cx);
        self.poll_written(written, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stdin).poll_shutdown(cx);
        self.poll_written(written, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn localhost_is_both_loopback_addresses() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
            let address = Address::Tcp {
                host: "localhost".into(),
                port: listener.local_addr().unwrap().port(),
                tls: None,
            };
            let dialed = Dialer::new(&address).unwrap().dial().await;
            assert!(dialed.is_ok(), "{ip}: {:?}", dialed.err());
        }
    }

    #[tokio::test]
    async fn a_pipe_that_broke_under_the_request_is_explained_by_what_ssh_says() {
        let mut ssh = Command::new("sh");
        ssh.args([
            "-c",
            "exec <&-; sleep 0.2; echo 'Permission denied (publickey).' >&2; exit 255",
        ]);
        let mut stream = SshStream::spawn(ssh).unwrap();
        for _ in 0..2 {
            let error = loop {
                match stream.write_all(b"GET /_ping HTTP/1.1\r\n").await {
                    Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(error) => break error.to_string(),
                }
            };
            assert_eq!(error, "ssh: Permission denied (publickey).");
        }
    }
}
