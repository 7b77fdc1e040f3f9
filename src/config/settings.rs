//! Flags beat the environment beats `build.toml`.

/// Everything a command needs to know, resolved.
pub struct Settings {}
