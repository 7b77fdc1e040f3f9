//! Configuration: `build.toml`, the environment and flags become one typed [`Settings`], once, at the edge.

pub mod builders;
pub mod file;
pub mod registries;
pub mod settings;

pub use file::{BuildFile, Distro, Family, Identity};
pub use settings::Settings;
