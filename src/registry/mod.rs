//! A client of the OCI distribution specification 1.1: names and settings become repositories, whose blobs and manifests
//! are read, written and referred to.
//!
//! On which library: `oci-client` 0.18 was looked at and not taken. It has the endpoints, tokens, an own CA, and reads referrers
//! with their fallback tag. It has no retry at all (neither `Retry-After` nor after a broken connection), no way to resume an
//! upload (the session's URL and the offset that the registry reports are private, and the offset is counted, not read),
//! gets no new token after a 401, has no client certificates, makes a request of its own of each piece of a stream, and
//! writes no fallback tag. Its requests are private too, so nothing of that can be put around it. So this is a client of our own, on
//! what does the rest well: `reqwest` (HTTP, TLS, proxies), `http-auth` (challenges), `backon` (back-off with jitter),
//! `docker_credential` (config.json and credential helpers), `oci-spec` (names and documents).

mod auth;
mod client;
mod download;
mod error;
mod image;
pub(crate) mod inspect;
pub(crate) mod prune;
mod referrers;
mod repository;
mod settings;
mod source;
mod tls;
mod untag;
mod upload;

pub use client::Patience;
pub use error::RegistryError;
pub use image::{RemoteImage, RemoteRoot};
pub use referrers::fallback_tag;
pub use repository::{Access, Repository};
pub use settings::{Overrides, Registries};
pub use source::Source;
pub use upload::Meter;
