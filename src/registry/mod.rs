//! A client of the OCI distribution specification 1.1. Names and settings select repositories, whose blobs, manifests
//! and referrers can be read and written.
//!
//! Why not `oci-client` 0.18: it has the endpoints, tokens, custom CAs, and reads referrers with their fallback tag.
//! But it never retries (no `Retry-After`, no retry after a broken connection), cannot resume an upload (the session's
//! URL and the registry's offset are private; the offset is counted, not read), does not renew a token after a 401, has
//! no client certificates, sends one request per piece of a stream, and writes no fallback tag. Its requests are
//! private, so a wrapper cannot add this. This client uses `reqwest` (HTTP, TLS, proxies), `http-auth` (challenges),
//! `backon` (back-off with jitter), and `oci-spec` (names and documents).

mod auth;
mod client;
mod download;
mod error;
mod image;
pub(crate) mod inspect;
mod link;
mod list;
pub(crate) mod prune;
mod read_back;
mod referrers;
mod repository;
mod settings;
mod source;
mod tls;
mod untag;
mod upload;
mod upload_way;

pub use client::Patience;
pub use error::RegistryError;
pub use image::{RemoteImage, RemoteRoot};
pub use referrers::fallback_tag;
pub use repository::{Access, Repository};
pub use settings::{Overrides, Registries};
pub use source::Source;
pub use upload::Meter;
