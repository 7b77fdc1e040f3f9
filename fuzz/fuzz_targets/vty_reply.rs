//! Parses arbitrary bytes of a daemon in pieces; the first byte is the size of a piece. The result is a reply, a
//! request for more bytes or an error, and does not depend on the size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obgp_runtime::vty::{Malformed, Reply, ReplyBuffer};

/// Parses up to the first reply or error. Returns the number of bytes used and the result.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (usize, Result<Option<Reply>, Malformed>) {
    let mut buffer = ReplyBuffer::default();
    let mut taken = 0;
    for piece in pieces {
        taken += piece.len();
        match buffer.push(piece) {
            Ok(None) => {}
            outcome => return (taken, outcome),
        }
    }
    (taken, Ok(None))
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (taken, outcome) = read(bytes.chunks(usize::from(size).max(1)));
    let (_, whole) = read(std::iter::once(&bytes[..taken]));
    assert!(taken == 0 || outcome == whole, "{outcome:?} {whole:?}");
    if let Ok(Some(reply)) = outcome {
        assert!(!reply.text.contains('\0') && bytes[taken - 1] == reply.status);
        assert!(!(reply.is_accepted() && reply.is_unknown()));
    }
});
