//! Compresses chunks on all cores, each into its own gzip member or zstd frame.
//!
//! A layer is the concatenation of its chunks' members (RFC 1952, section 2.2; RFC 8878, section 3): readers of both
//! formats continue after a member. The chunk boundaries depend only on the layer's content, so the bytes do not depend
//! on the number of threads, and a large file can be compressed before its neighbours are known.

use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use libdeflater::{CompressionLvl, Compressor};
use oci_spec::image::MediaType;

/// The fastest level: its size is within 3 % of skopeo's, which needs twice the processor time (a Debian image with
/// Python).
const GZIP_LEVEL: i32 = 1;
const ZSTD_LEVEL: i32 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    Gzip,
    Zstd,
}

impl Compression {
    pub fn media_type(self) -> MediaType {
        match self {
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

type Done = Box<dyn FnOnce(io::Result<Vec<u8>>) + Send>;

struct Job {
    data: Vec<u8>,
    done: Done,
}

/// Worker threads that compress. They end when every clone of the pool is dropped.
#[derive(Clone)]
pub struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, compression: Compression) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get);
        // A short queue bounds memory: a fast producer waits.
        let (jobs, queue) = sync_channel::<Job>(threads * 2);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, compression));
        }
        Self { jobs }
    }

    /// Waits for a place in the queue; a worker calls `done`.
    pub fn compress(&self, data: Vec<u8>, done: impl FnOnce(io::Result<Vec<u8>>) + Send + 'static) {
        let done = Box::new(done);
        if let Err(refused) = self.jobs.send(Job { data, done }) {
            (refused.0.done)(Err(io::Error::other("the compression threads have ended")));
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, compression: Compression) {
    let mut codec = Codec::new(compression);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let result = match &mut codec {
            Ok(codec) => codec.compress(&job.data),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        // Free the memory before the result is sent: the producer may continue immediately.
        drop(job.data);
        (job.done)(result);
    }
}

enum Codec {
    Gzip(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).map_err(|e| io::Error::other(format!("{e:?}")))?;
                Self::Gzip(Compressor::new(level))
            }
            Compression::Zstd => Self::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        })
    }

    fn compress(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(gzip) => {
                let mut out = vec![0; gzip.gzip_compress_bound(data.len())];
                let n = gzip.gzip_compress(data, &mut out).map_err(io::Error::other)?;
                out.truncate(n);
                Ok(out)
            }
            Self::Zstd(zstd) => zstd.compress(data),
        }
    }
}
