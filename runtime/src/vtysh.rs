//! `vtysh`, for what the agent does with it.

use std::ffi::OsString;
use std::process::ExitCode;

pub fn main(_: &[OsString]) -> ExitCode {
    eprintln!("vtysh: not written yet");
    ExitCode::FAILURE
}
