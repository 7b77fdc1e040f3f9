//! Small tools that know nothing of images: each exists once, here.

pub mod bridge;
pub mod elf;
