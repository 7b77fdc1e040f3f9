//! A proxy that fails like real registries and networks, and that can require tokens.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

/// A plain HTTP proxy in front of a registry, with the faults of real registries and networks.
pub struct Proxy {
    pub address: String,
    /// The token requests.
    pub scopes: Arc<Mutex<Vec<String>>>,
    pub faults: Arc<AtomicUsize>,
}

/// Every fifth request gets no response, status 429 or half a response. With `token`, every request needs it.
pub fn proxy(upstream: &str, token: Option<&'static str>, faulty: bool) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let value = Proxy {
        address: address.clone(),
        scopes: Arc::default(),
        faults: Arc::default(),
    };
    let (upstream, scopes, faults) = (upstream.to_string(), value.scopes.clone(), value.faults.clone());
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
    value
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
