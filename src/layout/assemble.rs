//! Assembles a layer blob from compressed chunks of large files and runs of small members in between.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use oci_spec::image::{Descriptor, MediaType};
use sha2::{Digest as _, Sha256};

use super::canonical::{self, Change, What};
use super::compress::Pool;
use super::layer::{CHUNK, LARGE_FILE};
use super::members::BLOCK;
use super::spool::{PackedChunk, Spool};
use super::store::{BlobWriter, Layout, StoreError};
use super::tree::Tree;

/// Maximum number of pieces in progress before the oldest is written: bounds memory.
const PENDING: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("writing the layer: {0}")]
    Io(#[from] io::Error),
}

/// A layer in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    pub diff_id: [u8; 32],
    pub uncompressed_size: u64,
    pub blob: Descriptor,
}

/// Writes a received layer unchanged, compressed again; `diff_id` and `size` are those of the received layer.
pub fn verbatim(
    layout: &Layout,
    pool: &Pool,
    media_type: MediaType,
    spool: &Spool,
    diff_id: [u8; 32],
    size: u64,
) -> Result<Assembled, AssembleError> {
    let mut writer = LayerWriter::new(layout, pool)?;
    let mut at = 0;
    for (offset, length) in spool.large_files() {
        writer.copy_run(spool, at, offset - at)?;
        writer.packed(spool, offset)?;
        at = offset + length;
    }
    writer.copy_run(spool, at, size - at)?;
    Ok(Assembled {
        diff_id,
        uncompressed_size: size,
        blob: writer.finish(media_type)?,
    })
}

/// Writes the canonical layer of `changes`; `tree` is the image including the layer.
pub fn canonical(
    layout: &Layout,
    pool: &Pool,
    media_type: MediaType,
    tree: &Tree,
    changes: &[Change],
    spools: &[Arc<Spool>],
    epoch: i64,
) -> Result<Assembled, AssembleError> {
    let mut writer = LayerWriter::new(layout, pool)?;
    let mut sha = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; CHUNK];
    for change in changes {
        let node = match change.what {
            What::Whiteout => None,
            _ => tree.get(&change.name),
        };
        let blocks = canonical::header(change, node, epoch)?;
        sha.update(&blocks);
        size += blocks.len() as u64;
        writer.run(&blocks)?;
        let What::File { data, size: length } = change.what else {
            continue;
        };
        let spool = &spools[data.source];
        let mut done = 0;
        while done < length {
            let n = (length - done).min(CHUNK as u64) as usize;
            spool.read_at(&mut buffer[..n], data.offset + done)?;
            sha.update(&buffer[..n]);
            if length < LARGE_FILE {
                writer.run(&buffer[..n])?;
            }
            done += n as u64;
        }
        if length >= LARGE_FILE {
            writer.packed(spool, data.offset)?;
        }
        let padding = length.next_multiple_of(BLOCK as u64) - length;
        let zeros = &[0; BLOCK][..padding as usize];
        sha.update(zeros);
        writer.run(zeros)?;
        size += length + padding;
    }
    let end = [0; 2 * BLOCK];
    sha.update(end);
    writer.run(&end)?;
    Ok(Assembled {
        diff_id: sha.finalize().into(),
        uncompressed_size: size + end.len() as u64,
        blob: writer.finish(media_type)?,
    })
}

enum Piece {
    Run(Receiver<io::Result<Vec<u8>>>),
    Packed(PackedChunk),
}

struct LayerWriter<'a> {
    blob: BlobWriter<'a>,
    pool: &'a Pool,
    /// Uncompressed bytes of the current run: at most [`CHUNK`].
    run: Vec<u8>,
    pending: VecDeque<Piece>,
}

impl<'a> LayerWriter<'a> {
    fn new(layout: &'a Layout, pool: &'a Pool) -> Result<Self, StoreError> {
        Ok(Self {
            blob: layout.blob_writer()?,
            pool,
            run: Vec::with_capacity(CHUNK),
            pending: VecDeque::new(),
        })
    }

    fn run(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = bytes.len().min(CHUNK - self.run.len());
            self.run.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.run.len() == CHUNK {
                self.end_run()?;
            }
        }
        Ok(())
    }

    fn copy_run(&mut self, spool: &Spool, mut offset: u64, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let old = self.run.len();
            let n = length.min((CHUNK - old) as u64) as usize;
            self.run.resize(old + n, 0);
            spool.read_at(&mut self.run[old..], offset)?;
            offset += n as u64;
            length -= n as u64;
            if self.run.len() == CHUNK {
                self.end_run()?;
            }
        }
        Ok(())
    }

    fn end_run(&mut self) -> io::Result<()> {
        if self.run.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.run, Vec::with_capacity(CHUNK));
        let (done, result) = channel();
        self.pool.compress(data, move |compressed| {
            // The receiver is gone if the layer was dropped.
            let _ = done.send(compressed);
        });
        self.push(Piece::Run(result))
    }

    fn packed(&mut self, spool: &Spool, offset: u64) -> io::Result<()> {
        self.end_run()?;
        for chunk in spool.packed_chunks(offset) {
            self.push(Piece::Packed(chunk))?;
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) -> io::Result<()> {
        self.pending.push_back(piece);
        if self.pending.len() > PENDING {
            self.write_oldest()
        } else {
            Ok(())
        }
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(piece) = self.pending.pop_front() else {
            return Ok(());
        };
        let bytes = match piece {
            Piece::Run(result) => result.recv().map_err(io::Error::other)??,
            Piece::Packed(chunk) => chunk.read()?,
        };
        self.blob.write_all(&bytes)
    }

    fn finish(mut self, media_type: MediaType) -> Result<Descriptor, AssembleError> {
        self.end_run()?;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        Ok(self.blob.finish(media_type)?)
    }
}
