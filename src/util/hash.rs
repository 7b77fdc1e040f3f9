//! Hashes several values into one key of 32 bytes.

use sha2::{Digest as _, Sha256};

/// SHA-256 over the parts and their lengths, so that `["ab", "c"]` and `["a", "bc"]` differ.
pub fn key(parts: &[impl AsRef<[u8]>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
