//! Small tools that know nothing of images: each exists once, here.

pub mod bridge;
pub mod cancel;
pub mod elf;
pub mod errors;
pub mod files;
pub mod hash;
pub mod process;
