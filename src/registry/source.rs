//! Reads a blob once, in pieces, for one or more uploads.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::pin;

use bytes::Bytes;
use futures_util::StreamExt;
use oci_spec::image::Descriptor;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::repository::Repository;

/// Size of a piece, and number of pieces that wait for a slow upload. Together they bound the memory of an upload.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

#[derive(Clone)]
pub enum Source {
    /// A blob in a layout.
    File(PathBuf),
    Memory(Bytes),
    /// A blob in another registry. Its digest is checked during the transfer.
    Remote(Repository),
}

/// The pieces of a blob. Dropping it ends this reader's part.
pub(crate) type Pieces = mpsc::Receiver<Result<Bytes, String>>;

impl Source {
    /// Reads the blob from `offset` once, for `readers` concurrent uploads. An upload that stops is dropped; the
    /// slowest one sets the pace.
    pub(crate) fn open(&self, blob: &Descriptor, offset: u64, readers: usize) -> Vec<Pieces> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..readers).map(|_| mpsc::channel(WAITING)).unzip();
        let tee = Tee(senders);
        match self {
            Source::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || tee.file(path, offset));
            }
            Source::Memory(bytes) => {
                let rest = bytes.slice((offset as usize).min(bytes.len())..);
                tokio::spawn(async move {
                    let mut tee = tee;
                    tee.send(Ok(rest)).await;
                });
            }
            Source::Remote(repository) => {
                let stream = repository.download(blob, offset);
                tokio::spawn(async move {
                    let mut tee = tee;
                    let mut stream = pin!(stream);
                    while let Some(piece) = stream.next().await {
                        if !tee.send(piece.map_err(|e| e.to_string())).await {
                            return;
                        }
                    }
                });
            }
        }
        receivers
    }

    /// The digest of the file, if the source is one: distinguishes a damaged blob from a damaged transfer.
    pub(super) async fn digest_on_disk(&self) -> Option<io::Result<String>> {
        let Source::File(path) = self else {
            return None;
        };
        let path = path.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            let (mut sha, mut buffer) = (Sha256::new(), vec![0; PIECE]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(format!("sha256:{}", hex::encode(sha.finalize()))),
                    n => sha.update(&buffer[..n]),
                }
            }
        });
        hashed.await.ok()
    }
}

/// A buffer that returns to its reader after use: fresh memory for every piece costs as much as reading it.
struct Lent {
    buffer: Vec<u8>,
    home: std::sync::mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // If the reader has ended, the buffer is dropped.
        let _ = self.home.send(std::mem::take(&mut self.buffer));
    }
}

struct Tee(Vec<mpsc::Sender<Result<Bytes, String>>>);

impl Tee {
    /// Sends to all remaining readers; `false` if there are none.
    async fn send(&mut self, piece: Result<Bytes, String>) -> bool {
        let mut listening = Vec::with_capacity(self.0.len());
        for sender in self.0.drain(..) {
            if sender.send(piece.clone()).await.is_ok() {
                listening.push(sender);
            }
        }
        self.0 = listening;
        !self.0.is_empty()
    }

    fn file(mut self, path: PathBuf, offset: u64) {
        let mut blocking_send = |piece: Result<Bytes, String>| {
            self.0.retain(|sender| sender.blocking_send(piece.clone()).is_ok());
            !self.0.is_empty()
        };
        let opened = File::open(&path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
        let file = match opened {
            Ok(file) => file,
            Err(e) => {
                blocking_send(Err(format!("{}: {e}", path.display())));
                return;
            }
        };
        let (home, returned) = std::sync::mpsc::channel();
        loop {
            let mut buffer: Vec<u8> = returned.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
            buffer.clear();
            let read = rustix::io::read(&file, spare_capacity(&mut buffer));
            let piece = Bytes::from_owner(Lent {
                buffer,
                home: home.clone(),
            });
            match read {
                Ok(0) => return,
                Ok(_) if blocking_send(Ok(piece)) => {}
                Ok(_) => return,
                Err(Errno::INTR) => {}
                Err(e) => {
                    blocking_send(Err(format!("{}: {e}", path.display())));
                    return;
                }
            }
        }
    }
}
