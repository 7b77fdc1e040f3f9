//! Simulates a buildkitd with the BuildKit of a modern engine: its gRPC API without the Docker API, `/session` and the
//! image store. The package archives that the tests use have no buildkitd.

use std::path::Path;

use obgp_build::engine::{Address, Dialer, Endpoint, Origin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// Listens on a socket in `dir` and forwards each connection to the engine's BuildKit.
pub fn start(engine: &Endpoint, dir: &Path) -> Endpoint {
    let socket = dir.join("buildkitd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dialer = Dialer::new(&engine.address).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buildkit = dialer.dial().await.unwrap();
            let upgrade = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
            buildkit.write_all(upgrade).await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"\r\n\r\n") {
                response.push(buildkit.read_u8().await.unwrap());
            }
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut buildkit).await });
        }
    });
    Endpoint {
        address: Address::Unix(socket),
        origin: Origin::DockerHost,
    }
}
