//! Registries, real ones on loopback: what the commands do there, on which ways, and with what going wrong.

mod commands;
mod disk_full;
mod faults;
mod referrers_api;
mod signed;
#[path = "../support/mod.rs"]
mod support;
mod transport;

const MIB: usize = 1 << 20;
