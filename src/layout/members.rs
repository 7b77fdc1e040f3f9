//! Reads a tar stream member by member: headers with resolved PAX and GNU extensions, in bounded memory.
//!
//! The `tar` crate reads and writes header blocks. The loop around them is separate for three reasons: the crate reads
//! extension headers of any size into memory; it splits PAX records at newlines, which the binary value of
//! `security.capability` may contain; and it does not report the offset of a file's data in the stream. Semantics
//! follow Go's `archive/tar`, which every container runtime uses.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::limits::Limits;

pub const BLOCK: usize = 512;

/// The prefix of PAX records for extended attributes.
pub const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// One member, before its path is validated.
#[derive(Debug)]
pub struct Member {
    pub path: String,
    /// Target of a symbolic or hard link.
    pub link: Option<String>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Whole seconds, rounded down.
    pub mtime: i64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub device: (u32, u32),
    /// Bytes of the following data.
    pub size: u64,
    /// Offset of the data in the stream.
    pub offset: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the stream ends in the middle of {0}: it was cut off")]
    Truncated(String),
    #[error("no tar header at byte {offset}: {reason}")]
    BadHeader { offset: u64, reason: String },
    #[error("{path:?}: {reason}")]
    BadMember { path: String, reason: String },
    #[error("{what} of {found} bytes exceeds the limit of {limit}")]
    TooLarge { what: String, found: u64, limit: u64 },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: u64 },
}

/// Reads members from `inner`. [`Members::next`] skips unread data.
pub struct Members<R> {
    inner: R,
    position: u64,
    /// Unread data of the current member, and its padding.
    remaining: u64,
    padding: u64,
    seen: u64,
    path_bytes: u64,
    limits: Limits,
    at: String,
}

/// Values from extension headers for the next member.
#[derive(Default)]
struct Extensions {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<String, Vec<u8>>,
    pax: bool,
    gnu_path: Option<String>,
    gnu_link: Option<String>,
}

impl<R: Read> Members<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            position: 0,
            remaining: 0,
            padding: 0,
            seen: 0,
            path_bytes: 0,
            limits,
            at: "the first header".into(),
        }
    }

    /// The next member; `None` at the archive's end.
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        let mut described = false;
        loop {
            let offset = self.position;
            let mut header = Header::new_old();
            if !self.read_block(header.as_mut_bytes())? {
                // Like Go, accept the end of the stream as the archive's end, but not within a member.
                return if described {
                    Err(TarError::Truncated("an extension header's member".into()))
                } else {
                    Ok(None)
                };
            }
            let bad = |reason: String| TarError::BadHeader { offset, reason };
            if header.as_bytes().iter().all(|b| *b == 0) {
                if described {
                    return Err(bad("an extension header is followed by the end of the archive".into()));
                }
                let mut second = [0; BLOCK];
                if self.read_block(&mut second)? && second.iter().any(|b| *b != 0) {
                    return Err(bad("a single zero block in the middle of the archive".into()));
                }
                return Ok(None);
            }
            check_sum(&header).map_err(bad)?;
            let kind = header.entry_type();
            let size = or_empty(&header.as_old().size, header.entry_size()).map_err(|e| bad(e.to_string()))?;
            match kind {
                EntryType::XHeader => {
                    if std::mem::replace(&mut extensions.pax, true) {
                        return Err(bad("two PAX headers for one member".into()));
                    }
                    let records = self.read_extension(size, "PAX header")?;
                    extensions.read_pax(&records).map_err(bad)?;
                }
                // Runtimes skip global headers (git stores a comment there).
                EntryType::XGlobalHeader => {
                    self.read_extension(size, "global PAX header")?;
                    self.count(0)?;
                    continue;
                }
                EntryType::GNULongName | EntryType::GNULongLink => {
                    let bytes = self.read_extension(size, "GNU long name")?;
                    let text = text(until_nul(&bytes)).map_err(bad)?;
                    let slot = match kind {
                        EntryType::GNULongName => &mut extensions.gnu_path,
                        _ => &mut extensions.gnu_link,
                    };
                    if slot.replace(text).is_some() {
                        return Err(bad("two GNU long names for one member".into()));
                    }
                }
                _ => return self.member(&header, size, extensions, offset).map(Some),
            }
            described = true;
        }
    }

    fn member(&mut self, header: &Header, size: u64, ext: Extensions, at: u64) -> Result<Member, TarError> {
        let bad = |reason: String| TarError::BadHeader { offset: at, reason };
        let path = match ext.gnu_path.or(ext.path) {
            Some(path) => path,
            None => text(&header.path_bytes()).map_err(bad)?,
        };
        let member_error = |reason: String| TarError::BadMember {
            path: path.clone(),
            reason,
        };
        let mut kind = header.entry_type();
        if header.as_bytes()[156] == 0 && path.ends_with('/') {
            kind = EntryType::Directory;
        }
        let number = |what: &str, pax: Option<u64>, plain: io::Result<u64>| {
            let value = match pax {
                Some(value) => value,
                None => plain.map_err(|e| member_error(e.to_string()))?,
            };
            u32::try_from(value).map_err(|_| member_error(format!("its {what} {value} does not fit 32 bits")))
        };
        let link = match kind {
            EntryType::Link | EntryType::Symlink => Some(match ext.gnu_link.or(ext.link) {
                Some(link) => link,
                None => text(&header.link_name_bytes().unwrap_or_default()).map_err(member_error)?,
            }),
            _ => None,
        };
        let size = data_size(kind, ext.size.unwrap_or(size)).map_err(member_error)?;
        if size > self.limits.layer_bytes.saturating_sub(self.position) {
            return Err(TarError::TooLarge {
                what: format!("{path:?}"),
                found: size,
                limit: self.limits.layer_bytes,
            });
        }
        let device = device(header, kind).map_err(|e| member_error(e.to_string()))?;
        let member = Member {
            link,
            kind,
            mode: or_empty(&header.as_old().mode, header.mode()).map_err(|e| member_error(e.to_string()))? & 0o7777,
            uid: number("owner", ext.uid, or_empty(&header.as_old().uid, header.uid()))?,
            gid: number("group", ext.gid, or_empty(&header.as_old().gid, header.gid()))?,
            mtime: match ext.mtime {
                Some(mtime) => mtime,
                None => plain_mtime(header).map_err(|e| member_error(e.to_string()))?,
            },
            xattrs: ext.xattrs,
            device,
            size,
            offset: self.position,
            path,
        };
        let names = member.path.len() + member.link.as_ref().map_or(0, String::len);
        let xattrs: usize = member.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.count((names + xattrs) as u64)?;
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.at = format!("{:?}", member.path);
        Ok(member)
    }

    fn count(&mut self, names: u64) -> Result<(), TarError> {
        self.seen += 1;
        self.path_bytes += names;
        let limit = |what, limit| Err(TarError::TooMany { what, limit });
        if self.seen > self.limits.entries {
            return limit("members", self.limits.entries);
        }
        if self.path_bytes > self.limits.path_bytes {
            return limit("bytes of names and extended attributes", self.limits.path_bytes);
        }
        Ok(())
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Unread bytes of the current member's data.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Fills `buffer` as far as the member has data; returns the number of bytes. A stream that ends early is an error.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = 0;
        while filled < want {
            match self.inner.read(&mut buffer[filled..want]) {
                Ok(0) => return Err(TarError::Truncated(self.at.clone())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.remaining -= filled as u64;
        self.position += filled as u64;
        Ok(filled)
    }

    /// Members read so far, without extension headers, and the bytes of their names and extended attributes.
    pub fn counts(&self) -> (u64, u64) {
        (self.seen, self.path_bytes)
    }

    /// Reads everything after the archive's end, so that the whole stream passes through `inner`, and copies it to `rest`.
    pub fn finish(mut self, rest: &mut impl io::Write) -> Result<R, TarError> {
        io::copy(&mut self.inner, rest)?;
        Ok(self.inner)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let skip = self.remaining + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink())?;
        self.position += skipped;
        if skipped < self.remaining {
            return Err(TarError::Truncated(self.at.clone()));
        }
        // Go accepts missing padding after the last member.
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }

    /// False if the stream ended before the block's first byte.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated(format!("the header after {}", self.at))),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    fn read_extension(&mut self, size: u64, what: &str) -> Result<Vec<u8>, TarError> {
        if size > self.limits.extension_bytes {
            return Err(TarError::TooLarge {
                what: what.into(),
                found: size,
                limit: self.limits.extension_bytes,
            });
        }
        self.at = what.into();
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut bytes = vec![0; size as usize];
        self.read_data(&mut bytes)?;
        self.skip_rest()?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Members<R> {
    /// Reads the current member's data.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                TarError::Truncated(self.at.clone()),
            ));
        }
        self.remaining -= n as u64;
        self.position += n as u64;
        Ok(n)
    }
}

impl Extensions {
    /// Records are `LENGTH KEY=VALUE\n`; LENGTH includes itself, in bytes.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or("malformed PAX record")?;
            records = rest;
            let at = record
                .iter()
                .position(|b| *b == b'=')
                .ok_or("a PAX record without '='")?;
            let (key, value) = (&record[..at], &record[at + 1..]);
            let key = std::str::from_utf8(key).map_err(|_| "a PAX key that is not UTF-8")?;
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                if !value.is_empty() {
                    self.xattrs.insert(name.to_string(), value.to_vec());
                }
                continue;
            }
            if key.starts_with("GNU.sparse.") {
                return Err("sparse members are not supported".into());
            }
            if !matches!(key, "path" | "linkpath" | "size" | "uid" | "gid" | "mtime") {
                continue;
            }
            let value = text(value)?;
            // An empty value deletes a record.
            let value = Some(value).filter(|v| !v.is_empty());
            let number = |v: &String| v.parse().map_err(|_| format!("PAX {key} {v:?} is not a number"));
            match key {
                "path" => self.path = value,
                "linkpath" => self.link = value,
                "size" => self.size = value.as_ref().map(number).transpose()?,
                "uid" => self.uid = value.as_ref().map(number).transpose()?,
                "gid" => self.gid = value.as_ref().map(number).transpose()?,
                _ => self.mtime = value.map(|v| whole_seconds(&v)).transpose()?,
            }
        }
        Ok(())
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
        return None;
    }
    Some((&records[space + 1..length - 1], &records[length..]))
}

/// `-1.5` becomes -2: times are rounded down.
fn whole_seconds(text: &str) -> Result<i64, String> {
    let wrong = || format!("PAX mtime {text:?} is not a time");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: i64 = seconds.parse().map_err(|_| wrong())?;
    let below = seconds.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    whole.checked_sub(i64::from(below)).ok_or_else(wrong)
}

fn plain_mtime(header: &Header) -> io::Result<i64> {
    // GNU tar writes times before 1970 in base 256 with the sign bit set; the crate cannot read negative numbers.
    if header.as_old().mtime[0] == 0xff {
        return Ok(-1);
    }
    Ok(i64::try_from(or_empty(&header.as_old().mtime, header.mtime())?).unwrap_or(i64::MAX))
}

/// The size of a member's data; `size` is that of its header or its extension header.
fn data_size(kind: EntryType, size: u64) -> Result<u64, String> {
    match kind {
        EntryType::Regular | EntryType::Continuous => Ok(size),
        // These have no data, whatever their size field.
        EntryType::Link
        | EntryType::Symlink
        | EntryType::Directory
        | EntryType::Char
        | EntryType::Block
        | EntryType::Fifo => Ok(0),
        EntryType::GNUSparse => Err("sparse members are not supported".into()),
        other => Err(format!("unknown member type {:?}", char::from(other.as_byte()))),
    }
}

/// The numbers of a device; zeros for other kinds.
fn device(header: &Header, kind: EntryType) -> io::Result<(u32, u32)> {
    match kind {
        EntryType::Char | EntryType::Block => Ok((
            header.device_major()?.unwrap_or_default(),
            header.device_minor()?.unwrap_or_default(),
        )),
        _ => Ok((0, 0)),
    }
}

/// Go reads an empty numeric field as zero; the crate returns an error.
fn or_empty<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(T::default());
    }
    parsed
}

fn check_sum(header: &Header) -> Result<(), String> {
    let said = header.cksum().map_err(|e| e.to_string())?;
    let mut copy = header.clone();
    copy.set_cksum();
    match copy.cksum() {
        Ok(sum) if sum == said => Ok(()),
        _ => Err("its checksum is wrong".into()),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn text(bytes: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_string()),
        Ok(text) => Err(format!("{text:?} contains a NUL byte")),
        Err(_) => Err(format!("{:?} is not UTF-8", String::from_utf8_lossy(bytes))),
    }
}
