//! A daemon's bytes, in pieces of any size (the first byte says how large), are one reply, more to come, or an error; how they
//! are cut makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obgp_runtime::vty::{Malformed, Reply, ReplyBuffer};

/// What comes of the bytes up to the first reply or error.
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
