//! Converts a 32-byte SHA-256 into an OCI digest, `sha256:<hex>`.

use oci_spec::image::Digest;

pub fn sha256_digest(bytes: &[u8; 32]) -> Digest {
    let text = format!("sha256:{}", hex::encode(bytes));
    Digest::try_from(text).expect("64 hexadecimal digits are a SHA-256 digest")
}
