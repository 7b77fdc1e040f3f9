//! Helpers without knowledge of images.

pub mod bridge;
pub(crate) mod cancel;
pub(crate) mod elf;
pub(crate) mod errors;
pub(crate) mod files;
pub(crate) mod hash;
pub(crate) mod process;
pub(crate) mod record;
