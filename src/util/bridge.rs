//! Bridges an async byte stream to a blocking reader.
//!
//! The reading thread is woken per batch instead of per piece: protocols deliver small pieces (32 KiB from an engine),
//! and waking for each one took a tenth of an export's processor time.

use std::io::{self, Read};
use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Bytes in a batch, and batches that may wait for the thread.
const BATCH: usize = 256 << 10;
const WAITING: usize = 2;

/// Starts reading the stream. The returned reader is for a thread that may block.
pub fn reader<S>(handle: &Handle, stream: S) -> impl Read + Send + use<S>
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    handle.spawn(batch(stream, sender));
    let batches = stream::unfold(receiver, async |mut receiver| {
        let batch: Vec<io::Result<Bytes>> = receiver.recv().await?;
        Some((stream::iter(batch), receiver))
    });
    SyncIoBridge::new_with_handle(StreamReader::new(Box::pin(batches.flatten())), handle.clone())
}

async fn batch<S>(stream: S, batches: mpsc::Sender<Vec<io::Result<Bytes>>>)
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let mut stream = pin!(stream);
    let (mut batch, mut size) = (Vec::new(), 0);
    while let Some(piece) = stream.next().await {
        size += piece.as_ref().map_or(0, Bytes::len);
        batch.push(piece);
        if size >= BATCH {
            size = 0;
            if batches.send(std::mem::take(&mut batch)).await.is_err() {
                // The reader was dropped.
                return;
            }
        }
    }
    let _ = batches.send(batch).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::spawn_blocking;

    use super::*;

    const PIECE: usize = 32 << 10;

    /// Yields pieces of increasing byte values and counts the pieces read.
    fn pieces(count: usize) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let pieces = stream::iter(0..count).map(move |n| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![n as u8; PIECE]))
        });
        (pieces, asked)
    }

    #[tokio::test]
    async fn everything_arrives_in_order_and_nothing_is_read_far_ahead() {
        let (pieces, asked) = pieces(200);
        let mut reader = reader(&Handle::current(), pieces);
        let read = spawn_blocking(move || {
            let mut first = vec![0; PIECE];
            reader.read_exact(&mut first).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            let ahead = asked.load(Ordering::Relaxed) * PIECE;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            (first, ahead, rest)
        });
        let (first, ahead, rest) = read.await.unwrap();
        assert!(
            ahead <= (WAITING + 2) * BATCH,
            "{ahead} bytes were read when one piece was wanted"
        );
        let all = [first, rest].concat();
        assert_eq!(all.len(), 200 * PIECE);
        assert!(
            all.chunks(PIECE)
                .enumerate()
                .all(|(n, piece)| piece.iter().all(|b| *b == n as u8))
        );
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_read_before_it_is_told() {
        let (pieces, _) = pieces(3);
        let broken = pieces.chain(stream::iter([Err(io::Error::other("the line broke"))]));
        let mut reader = reader(&Handle::current(), broken);
        let read = spawn_blocking(move || {
            let mut all = Vec::new();
            let error = reader.read_to_end(&mut all).unwrap_err();
            (all.len(), error.to_string())
        });
        assert_eq!(read.await.unwrap(), (3 * PIECE, "the line broke".to_string()));
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_any_more_is_let_go() {
        let (pieces, asked) = pieces(usize::MAX);
        let reader = reader(&Handle::current(), pieces);
        spawn_blocking(move || drop(reader)).await.unwrap();
        while Arc::strong_count(&asked) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
