//! What is installed in a file tree: the dpkg database and Python's metadata directories, as typed values.
//!
//! Read from the contents a [`Tree`](crate::layout::tree::Tree) kept; `verify` judges them, `diff` compares them, the SBOM
//! lists them. The bytes come from an image somebody else may have made, so every reader is bounded and none panics.

pub mod dpkg;
pub mod python;
