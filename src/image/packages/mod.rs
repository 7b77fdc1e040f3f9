//! What is installed in a file tree: the dpkg database, Python's metadata directories and the build's own list, as typed
//! values.
//!
//! Read from the contents a [`Tree`](crate::layout::tree::Tree) kept; `verify` judges them, `diff` compares them, the SBOM
//! lists them. The bytes come from an image somebody else may have made, so every reader is bounded and none panics.

pub mod alternatives;
pub mod built;
pub mod dpkg;
pub mod dpkg_files;
pub mod python;
