//! An unnamed file on the layout's file system, deleted when closed. A full file system is reported with the layout's path and
//! the free bytes: the file has no name that an error could contain.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{Layout, StoreError, failed, write_failed};

pub struct Scratch {
    file: File,
    root: PathBuf,
}

impl Layout {
    pub(in crate::layout) fn scratch(&self) -> Result<Scratch, StoreError> {
        self.must_be_writable()?;
        let file = tempfile::tempfile_in(&self.root).map_err(failed("creating a temporary file in", &self.root))?;
        Ok(Scratch {
            file,
            root: self.root.clone(),
        })
    }
}

impl Scratch {
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| write_failed(e, &self.root))
    }

    pub fn into_file(self) -> File {
        self.file
    }

    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|e| write_failed(e, &self.root))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
