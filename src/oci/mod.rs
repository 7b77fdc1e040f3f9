//! Basic types shared by every stage: platform, digest, reference, content. This module imports no other.

mod content;
mod digest;
pub mod docker_config;
pub mod name_part;
mod platform;
mod reference;

pub use content::{Artifact, Content, Place};
pub use digest::sha256_digest;
pub use platform::{Architecture, Platform};
pub use reference::{ImageReference, ReferenceError, RepositoryName};
