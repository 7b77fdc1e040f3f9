//! What an image holds, read from its files: installed packages, applied patches, and how two images differ.

pub mod applied;
pub mod diff;
pub mod os_release;
pub mod packages;
