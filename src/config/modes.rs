//! Options with a fixed set of values. `cli` gives them their spelling.

/// When a base image is made from the distro's archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BootstrapMode {
    /// When neither the engine nor the registry has one.
    #[default]
    Auto,
    Always,
    Never,
}

/// How progress is shown on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// One line for each step and each line of build output.
    Plain,
    /// Warnings, errors and results only.
    Quiet,
}
