//! A buildkitd. None is to be had from the archives that the tests use. What stands in for it is the BuildKit of the modern
//! engine, by its own API: no Docker API around it, no `/session`, no image store.

use std::path::Path;

use obgp_build::engine::{Address, Dialer, Endpoint, Origin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// Listens in `dir` as a buildkitd does, gRPC from the first byte on, and joins each connection to the engine's BuildKit.
pub fn start(engine: &Endpoint, dir: &Path) -> Endpoint {
    let socket = dir.join("buildkitd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dialer = Dialer::new(&engine.address).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buildkit = dialer.dial().await.unwrap();
            let upgrade = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
            buildkit.write_all(upgrade).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(buildkit.read_u8().await.unwrap());
            }
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut buildkit).await });
        }
    });
    Endpoint {
        address: Address::Unix(socket),
        origin: Origin::DockerHost,
    }
}
