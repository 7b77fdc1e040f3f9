//! Spools a received layer in unnamed files until its final form is known: the uncompressed bytes, and the compressed
//! chunks of its large files, which are compressed while the rest arrives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::compress::Pool;
use super::layer::{CHUNK, Sink};
use super::store::{Layout, Scratch, StoreError};

/// Receives a layer.
pub struct SpoolWriter {
    raw: BufWriter<Scratch>,
    packed: Arc<Packed>,
    large: HashMap<u64, LargeFile>,
    current: Option<(u64, u64)>,
    pool: Pool,
}

/// A complete layer, readable at any offset.
pub struct Spool {
    raw: File,
    packed: Arc<Packed>,
    large: HashMap<u64, LargeFile>,
}

/// The compressed chunks of one large file, in order.
#[derive(Default)]
struct LargeFile {
    size: u64,
    chunks: Vec<Arc<Slot>>,
}

/// Compressed chunks in the order of completion.
struct Packed {
    file: Scratch,
    end: Mutex<u64>,
}

/// The position of a compressed chunk in the packed file, once it is written.
#[derive(Default)]
struct Slot {
    place: Mutex<Option<Result<(u64, usize), String>>>,
    ready: Condvar,
}

impl SpoolWriter {
    pub fn new(layout: &Layout, pool: Pool) -> Result<Self, StoreError> {
        Ok(Self {
            raw: BufWriter::with_capacity(256 << 10, layout.scratch()?),
            packed: Arc::new(Packed {
                file: layout.scratch()?,
                end: Mutex::new(0),
            }),
            large: HashMap::new(),
            current: None,
            pool,
        })
    }

    pub fn finish(self) -> io::Result<Spool> {
        Ok(Spool {
            raw: self
                .raw
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .into_file(),
            packed: self.packed,
            large: self.large,
        })
    }
}

impl Sink for SpoolWriter {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.write_all(bytes)
    }

    fn large_chunk(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = match self.current {
            Some((start, end)) if end == offset => start,
            _ => offset,
        };
        self.current = Some((start, offset + data.len() as u64));
        let slot = Arc::new(Slot::default());
        let file = self.large.entry(start).or_default();
        file.size += data.len() as u64;
        file.chunks.push(Arc::clone(&slot));
        let packed = Arc::clone(&self.packed);
        self.pool.compress(data.to_vec(), move |result| {
            slot.set(result.and_then(|bytes| packed.append(&bytes)));
        });
        Ok(())
    }
}

impl Packed {
    fn append(&self, bytes: &[u8]) -> io::Result<(u64, usize)> {
        let at = {
            let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let at = *end;
            *end += bytes.len() as u64;
            at
        };
        self.file.write_all_at(bytes, at)?;
        Ok((at, bytes.len()))
    }
}

impl Slot {
    fn set(&self, place: io::Result<(u64, usize)>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.map_err(|e| e.to_string()));
        self.ready.notify_all();
    }

    fn wait(&self) -> io::Result<(u64, usize)> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*place {
                Some(Ok(place)) => return Ok(*place),
                Some(Err(e)) => return Err(io::Error::other(e.clone())),
                None => place = self.ready.wait(place).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Spool {
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.raw.read_exact_at(buffer, offset)
    }

    /// Offset and size of every large file, in stream order.
    pub fn large_files(&self) -> Vec<(u64, u64)> {
        let mut files: Vec<_> = self.large.iter().map(|(offset, file)| (*offset, file.size)).collect();
        files.sort_unstable();
        files
    }

    /// The compressed chunks of the large file with data at `offset`.
    pub fn packed_chunks(&self, offset: u64) -> impl Iterator<Item = PackedChunk> + '_ {
        let chunks = self.large.get(&offset).map_or(&[][..], |file| &file.chunks);
        chunks.iter().map(|slot| PackedChunk {
            packed: Arc::clone(&self.packed),
            slot: Arc::clone(slot),
        })
    }

    /// Whether `size` bytes at `offset` equal those of another spool at another offset.
    pub fn same(&self, offset: u64, other: &Spool, other_offset: u64, size: u64) -> io::Result<bool> {
        let mut a = vec![0; CHUNK.min(size as usize)];
        let mut b = a.clone();
        let mut done = 0;
        while done < size {
            let n = (size - done).min(CHUNK as u64) as usize;
            self.read_at(&mut a[..n], offset + done)?;
            other.read_at(&mut b[..n], other_offset + done)?;
            if a[..n] != b[..n] {
                return Ok(false);
            }
            done += n as u64;
        }
        Ok(true)
    }
}

pub struct PackedChunk {
    packed: Arc<Packed>,
    slot: Arc<Slot>,
}

impl PackedChunk {
    /// Waits until the chunk is compressed.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let (at, length) = self.slot.wait()?;
        let mut bytes = vec![0; length];
        self.packed.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}
