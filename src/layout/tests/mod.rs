//! Tests of the whole stage, on generated archives.

mod canonical;
mod crash;
mod exports;
mod hostile;
mod secrets;
mod store;
mod support;
mod whiteouts;
