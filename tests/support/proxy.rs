//! Proxies in front of an engine: one that a test can interrupt, and one that requires mutual TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use obgp_build::engine::{Address, Dialer, Duplex, Endpoint};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// Forwards connections from a unix socket to an engine until a test interrupts it.
pub struct Breakable {
    pub socket: PathBuf,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Breakable {
    pub fn start(engine: &Endpoint, dir: &Path) -> Self {
        let socket = dir.join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let dialer = Dialer::new(&engine.address).unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let pumps = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let pump = tokio::spawn(pump(client, dialer.clone()));
                pumps.lock().unwrap().push(pump);
            }
        });
        Self {
            socket,
            connections,
            accepting,
        }
    }

    /// Closes every open connection. New connections still work.
    pub fn break_all(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|pump| pump.abort());
    }

    /// Closes every connection and accepts no new ones, like a host that is down.
    pub fn die(&self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.socket);
        self.break_all();
    }

    pub fn endpoint(&self, like: &Endpoint) -> Endpoint {
        Endpoint {
            address: Address::Unix(self.socket.clone()),
            origin: like.origin.clone(),
        }
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        self.accepting.abort();
        self.break_all();
    }
}

/// Listens on loopback with this TLS configuration and forwards connections to an engine.
pub async fn start_tls(engine: &Endpoint, config: rustls::ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialer = Dialer::new(&engine.address).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, dialer) = (acceptor.clone(), dialer.clone());
            tokio::spawn(async move {
                if let Ok(client) = acceptor.accept(tcp).await {
                    pump(client, dialer).await;
                }
            });
        }
    });
    address
}

async fn pump(mut client: impl Duplex, dialer: Dialer) {
    if let Ok(mut engine) = dialer.dial().await {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
    }
}
