//! OCI image layouts on disk, and the one pass that turns an engine's export into one.

pub mod tree;
