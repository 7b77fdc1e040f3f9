//! `build.toml` and the choices of a run, as plain data. Rejects unknown keys and invalid values.

pub(crate) mod builders;
pub mod cache;
pub mod check;
pub mod file;
pub mod labels;
mod modes;
pub(crate) mod registries;
mod runtime_binary;

pub use file::{BuildFile, Distro, Family, Identity};
pub use modes::{BootstrapMode, ProgressMode};
pub use runtime_binary::RuntimeBinary;
