//! Helpers without knowledge of images.

pub mod bridge;
pub mod cancel;
pub mod elf;
pub mod errors;
pub mod files;
pub mod hash;
pub mod process;
