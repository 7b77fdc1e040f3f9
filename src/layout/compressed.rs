//! The bytes of a file -> the text inside it: gzip, the members of a zip archive, and UTF-16. A tar archive needs
//! nothing: its members are in its bytes.
//!
//! Bytes are pushed chunk by chunk, as a layer is read; memory does not depend on their number. Data that cannot be
//! decoded ends the text without an error: it may be any file that begins like one of these. Formats: RFC 1952 (gzip),
//! APPNOTE 6.3 (zip). Why not the `zip` crate: it pulls from a `Read`, which would need a thread for each file.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

/// Bytes that are decoded of one file. The rest is not searched.
const LIMIT: u64 = 64 << 20;
/// Decoded bytes for each byte of the file. More is a bomb, or repeats itself.
const RATIO: u64 = 200;
/// Bytes that are decoded at a time. Deflate expands them to at most 1032 times as much.
const SLICE: usize = 4096;
/// Characters that begin a text in UTF-16 without a byte order mark.
const CHARACTERS: usize = 8;

const GZIP: &[u8] = &[0x1f, 0x8b, 8];
const MEMBER: &[u8] = b"PK\x03\x04";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
/// The length of a member's header in a zip archive, without name and extra field.
const HEADER: usize = 30;

pub(super) struct Inside {
    form: Form,
    read: u64,
    decoded: u64,
}

enum Form {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zip(Box<Zip>),
    Utf16(Utf16),
}

/// There is nothing more to decode.
struct End;

impl Inside {
    /// `None` if the beginning of the file is of none of the formats.
    pub fn of(beginning: &[u8]) -> Option<Self> {
        let form = if beginning.starts_with(GZIP) {
            Form::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
        } else if beginning.starts_with(MEMBER) {
            Form::Zip(Box::default())
        } else {
            Form::Utf16(Utf16::of(beginning)?)
        };
        Some(Self {
            form,
            read: 0,
            decoded: 0,
        })
    }

    /// Passes the text in the next bytes to `search`. Returns whether there may be more.
    pub fn update(&mut self, data: &[u8], mut search: impl FnMut(&[u8])) -> bool {
        for slice in data.chunks(SLICE) {
            let mut text = Vec::new();
            let result = match &mut self.form {
                Form::Gzip(decoder) => {
                    let result = decoder.write_all(slice).map_err(|_| End);
                    // On errors, and where a part ends, decoded bytes wait in the decoder.
                    let _ = decoder.flush();
                    text.append(decoder.get_mut());
                    result
                }
                Form::Zip(zip) => zip.update(slice, &mut text),
                Form::Utf16(utf16) => {
                    utf16.update(slice, &mut text);
                    Ok(())
                }
            };
            search(&text);
            self.read += slice.len() as u64;
            self.decoded += text.len() as u64;
            if result.is_err() || self.decoded > LIMIT.min(self.read * RATIO) {
                return false;
            }
        }
        true
    }
}

/// The members of an archive, one after another.
struct Zip {
    state: State,
    /// The part of a header, or of a descriptor, that has arrived.
    header: Vec<u8>,
    inflate: Decompress,
}

enum State {
    Header,
    Skip(u64),
    /// Whether a descriptor follows.
    Deflated(bool),
    Descriptor,
}

impl Default for Zip {
    fn default() -> Self {
        Self {
            state: State::Header,
            header: Vec::new(),
            inflate: Decompress::new(false),
        }
    }
}

impl Zip {
    fn update(&mut self, mut data: &[u8], text: &mut Vec<u8>) -> Result<(), End> {
        while !data.is_empty() {
            match self.state {
                State::Header => {
                    let length =
                        |header: &[u8]| HEADER + usize::from(number(header, 26)) + usize::from(number(header, 28));
                    let Some(header) = self.gather(&mut data, length, HEADER) else {
                        return Ok(());
                    };
                    self.state = after_header(&header)?;
                    self.inflate.reset(false);
                }
                State::Skip(left) => {
                    let skipped = left.min(data.len() as u64);
                    data = &data[skipped as usize..];
                    self.state = match left - skipped {
                        0 => State::Header,
                        left => State::Skip(left),
                    };
                }
                State::Deflated(described) => {
                    if self.inflate(&mut data, text)? {
                        self.state = if described { State::Descriptor } else { State::Header };
                    }
                }
                State::Descriptor => {
                    // The signature is optional; then a checksum and two sizes.
                    let length = |start: &[u8]| if start == DESCRIPTOR { 16 } else { 12 };
                    if self.gather(&mut data, length, DESCRIPTOR.len()).is_none() {
                        return Ok(());
                    }
                    self.state = State::Header;
                }
            }
        }
        Ok(())
    }

    /// Collects a structure whose first `fixed` bytes determine its length; `None` if more bytes are needed.
    fn gather(&mut self, data: &mut &[u8], length: impl Fn(&[u8]) -> usize, fixed: usize) -> Option<Vec<u8>> {
        let mut take = |header: &mut Vec<u8>, upto: usize| {
            let n = data.len().min(upto.saturating_sub(header.len()));
            header.extend_from_slice(&data[..n]);
            *data = &data[n..];
            header.len() >= upto
        };
        if !take(&mut self.header, fixed) {
            return None;
        }
        let whole = length(&self.header[..fixed]);
        take(&mut self.header, whole).then(|| std::mem::take(&mut self.header))
    }

    /// Decodes from `data`. Returns whether the member ended.
    fn inflate(&mut self, data: &mut &[u8], text: &mut Vec<u8>) -> Result<bool, End> {
        loop {
            let before = self.inflate.total_in();
            text.reserve(8 * SLICE);
            let room = text.capacity();
            let status = self
                .inflate
                .decompress_vec(data, text, FlushDecompress::None)
                .map_err(|_| End)?;
            *data = &data[(self.inflate.total_in() - before) as usize..];
            match status {
                Status::StreamEnd => return Ok(true),
                // The output was full.
                _ if text.len() == room => {}
                _ => return Ok(false),
            }
        }
    }
}

/// What follows the header of a member.
fn after_header(header: &[u8]) -> Result<State, End> {
    const ENCRYPTED: u16 = 1;
    const DESCRIBED: u16 = 8;
    const DEFLATE: u16 = 8;
    if !header.starts_with(MEMBER) {
        // The central directory.
        return Err(End);
    }
    let (flags, method) = (number(header, 6), number(header, 8));
    let size = u64::from(number(header, 18)) | u64::from(number(header, 20)) << 16;
    match method {
        DEFLATE if flags & ENCRYPTED == 0 => Ok(State::Deflated(flags & DESCRIBED != 0)),
        // Stored members are text as they are. The end of one with a descriptor is not known, nor that of a large one.
        _ if flags & DESCRIBED == 0 && size < u64::from(u32::MAX) => Ok(State::Skip(size)),
        _ => Err(End),
    }
}

/// Two bytes, little-endian.
fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Text in UTF-16, of which the characters of ASCII are searched.
struct Utf16 {
    /// 0 if the lower byte of a character comes first.
    low: usize,
    /// A first byte without its second one.
    half: Option<u8>,
}

impl Utf16 {
    fn of(beginning: &[u8]) -> Option<Self> {
        let ascii = |low: usize| {
            let mut characters = beginning.chunks_exact(2).take(CHARACTERS);
            let is_ascii = characters.all(|pair| pair[1 - low] == 0 && pair[low].is_ascii() && pair[low] >= b'\t');
            is_ascii && beginning.len() >= 2 * CHARACTERS
        };
        let low = match beginning {
            [0xff, 0xfe, ..] => 0,
            [0xfe, 0xff, ..] => 1,
            _ if ascii(0) => 0,
            _ if ascii(1) => 1,
            _ => return None,
        };
        Some(Self { low, half: None })
    }

    fn update(&mut self, data: &[u8], text: &mut Vec<u8>) {
        for byte in data {
            let Some(first) = self.half.take() else {
                self.half = Some(*byte);
                continue;
            };
            let pair = [first, *byte];
            // Others separate words as well as a NUL.
            text.push(if pair[1 - self.low] == 0 { pair[self.low] } else { 0 });
        }
    }
}
