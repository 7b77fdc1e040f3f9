//! Rebuilds a layer's tar from its unpacked files and Docker's tar-split metadata
//! (<https://github.com/vbatts/tar-split>): one line of JSON per piece, in order.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Take};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::bufread::MultiGzDecoder;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use serde::Deserialize;

/// Maximum length of a line: the headers between two contents, in base64.
const LINE: u64 = 16 << 20;

/// `storage.Entry` of tar-split.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    /// In base64, in place of a name that is not UTF-8.
    name_raw: Option<&'a str>,
    #[serde(default)]
    size: u64,
    /// In base64: the bytes of a segment, a file's checksum.
    payload: Option<&'a str>,
}

/// The piece that a line describes.
enum Piece {
    Bytes(Cursor<Vec<u8>>),
    Content(Take<File>),
}

/// The tar of a layer.
pub struct Layer {
    lines: Lines,
    /// The directory with the layer's unpacked files.
    files: OwnedFd,
    piece: Piece,
}

impl Layer {
    pub fn open(tar_split: &Path, files: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            lines: Lines::open(tar_split)?,
            files: openat(CWD, files, flags, Mode::empty())?,
            piece: Piece::Bytes(Cursor::default()),
        })
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = match &mut self.piece {
                Piece::Bytes(bytes) => bytes.read(buffer)?,
                Piece::Content(content) => content.read(buffer)?,
            };
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            match self.lines.next()? {
                Some(entry) => self.piece = entry.open(&self.files)?,
                None => return Ok(0),
            }
        }
    }
}

/// The size of the tar, in bytes.
pub fn size(tar_split: &Path) -> io::Result<u64> {
    let mut lines = Lines::open(tar_split)?;
    let mut size: u64 = 0;
    while let Some(entry) = lines.next()? {
        size = size.checked_add(entry.len()).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(size)
}

struct Lines {
    reader: BufReader<MultiGzDecoder<BufReader<File>>>,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        let packed = BufReader::new(File::open(path)?);
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, MultiGzDecoder::new(packed)),
            line: Vec::new(),
        })
    }

    fn next(&mut self) -> io::Result<Option<Entry<'_>>> {
        self.line.clear();
        let read = self.reader.by_ref().take(LINE).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&self.line)?))
    }
}

impl Entry<'_> {
    const FILE: u8 = 1;
    const SEGMENT: u8 = 2;

    fn len(&self) -> u64 {
        match (self.kind, self.payload) {
            (Self::FILE, _) => self.size,
            (Self::SEGMENT, Some(base64)) => {
                let padding = base64.bytes().rev().take_while(|b| *b == b'=').count();
                (base64.len() / 4 * 3).saturating_sub(padding) as u64
            }
            _ => 0,
        }
    }

    fn open(&self, files: &OwnedFd) -> io::Result<Piece> {
        match (self.kind, self.payload) {
            (Self::FILE, _) if self.size > 0 => Ok(Piece::Content(self.content(files)?.take(self.size))),
            (Self::SEGMENT, Some(base64)) => {
                let bytes = BASE64_STANDARD.decode(base64).map_err(io::Error::other)?;
                Ok(Piece::Bytes(Cursor::new(bytes)))
            }
            _ => Ok(Piece::Bytes(Cursor::default())),
        }
    }

    /// Opens the file, only below the layer's directory, and only after checking that it is a regular file: opening a
    /// device can trigger an action.
    fn content(&self, files: &OwnedFd) -> io::Result<File> {
        let raw = self.name_raw.map(|base64| BASE64_STANDARD.decode(base64)).transpose();
        let raw = raw.map_err(io::Error::other)?;
        let name = raw.as_deref().unwrap_or(self.name.as_bytes());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(files, OsStr::from_bytes(name), flags, Mode::empty(), beneath)?;
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || u64::try_from(stat.st_size) != Ok(self.size)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a file of {} bytes any more", self.name, self.size),
            ));
        }
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An unpacked layer, and its tar-split with these lines.
    fn layer(lines: &[String]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("diff");
        fs::create_dir_all(files.join("etc")).unwrap();
        fs::write(files.join("etc/passwd"), "root").unwrap();
        fs::write(files.join(OsStr::from_bytes(b"\xff")), "bytes").unwrap();
        let tar_split = dir.path().join("tar-split.json.gz");
        let mut packed = GzEncoder::new(File::create(&tar_split).unwrap(), Compression::fast());
        for line in lines {
            writeln!(packed, "{line}").unwrap();
        }
        packed.finish().unwrap();
        (dir, tar_split, files)
    }

    fn segment(bytes: &[u8]) -> String {
        format!(
            r#"{{"type":2,"payload":"{}","position":0}}"#,
            BASE64_STANDARD.encode(bytes)
        )
    }

    fn file(name: &str, size: u64) -> String {
        format!(r#"{{"type":1,"name":"{name}","size":{size},"payload":"FgcFAAAAAAA=","position":1}}"#)
    }

    fn read(tar_split: &Path, files: &Path) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Layer::open(tar_split, files)?.read_to_end(&mut all)?;
        assert_eq!(size(tar_split)?, all.len() as u64);
        Ok(all)
    }

    #[test]
    fn headers_and_contents_come_in_order() {
        let (_dir, tar_split, files) = layer(&[
            segment(b"[etc]"),
            r#"{"type":1,"name":"etc/","payload":null,"position":1}"#.into(),
            segment(b"[passwd]"),
            file("./etc/passwd", 4),
            segment(b"\0\0[raw]"),
            r#"{"type":1,"name_raw":"/w==","size":5,"payload":"FgcFAAAAAAA=","position":5}"#.into(),
            segment(b"\0\0\0\0"),
        ]);
        assert_eq!(
            read(&tar_split, &files).unwrap(),
            b"[etc][passwd]root\0\0[raw]bytes\0\0\0\0"
        );
    }

    #[test]
    fn a_file_that_is_not_what_it_was_is_an_error() {
        for line in [
            file("etc/passwd", 3),
            file("etc/passwd", 5),
            file("etc/shadow", 4),
            file("etc", 4096),
        ] {
            let (_dir, tar_split, files) = layer(&[segment(b"header"), line.clone()]);
            read(&tar_split, &files).expect_err(&line);
        }
    }

    #[test]
    fn nothing_is_read_outside_of_the_layer() {
        let (dir, tar_split, files) = layer(&[file("up/secret", 6)]);
        fs::write(dir.path().join("secret"), "secret").unwrap();
        for target in ["..", dir.path().to_str().unwrap()] {
            let _ = fs::remove_file(files.join("up"));
            std::os::unix::fs::symlink(target, files.join("up")).unwrap();
            assert!(files.join("up/secret").exists());
            read(&tar_split, &files).unwrap_err();
        }
        let (dir, tar_split, files) = layer(&[file("../secret", 6), file("last", 6)]);
        fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", files.join("last")).unwrap();
        read(&tar_split, &files).unwrap_err();
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let (_dir, tar_split, files) = layer(&[file("pipe", 4)]);
        rustix::fs::mkfifoat(CWD, files.join("pipe"), Mode::RUSR).unwrap();
        read(&tar_split, &files).unwrap_err();
    }

    #[test]
    fn what_is_no_tar_split_is_an_error() {
        for line in ["{", r#"{"type":2,"payload":"?"}"#, r#"{"type":1,"name":7}"#] {
            let (_dir, tar_split, files) = layer(&[line.to_string()]);
            let mut all = Vec::new();
            let read = Layer::open(&tar_split, &files).unwrap().read_to_end(&mut all);
            read.expect_err(line);
        }
        let (_dir, tar_split, files) = layer(&["7".repeat(usize::try_from(LINE).unwrap() + 1)]);
        Layer::open(&tar_split, &files)
            .unwrap()
            .read_to_end(&mut Vec::new())
            .unwrap_err();
    }
}
