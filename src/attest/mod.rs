//! What is said about an image: what is in it (SBOM), and what made it from what (provenance).
//!
//! ```text
//! Tree + configuration ──sbom──> Sbom ──spdx, cyclonedx──> document ──┐
//! ImagePlan + Target + Built ──provenance──> predicate ───────────────┴─statement──> in-toto statement (unsigned)
//! ```
//!
//! Nothing here reads layers again: the tree that the build ingested, or `verify` read, has all that is needed. The same
//! image gives the same documents, byte for byte.

mod copyright;
mod crates;
pub mod cyclonedx;
mod deb;
mod license;
pub mod provenance;
mod pypi;
pub mod sbom;
pub mod spdx;
pub mod statement;

pub use license::License;
pub use sbom::{ImageForSbom, Sbom, SbomError};
pub use statement::{Statement, Subject};
