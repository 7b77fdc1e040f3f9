//! Tests the commands against real registries on loopback.

mod disk_full;
mod faults;
mod login;
mod login_habits;
mod not_judged;
mod other_registries;
mod prune;
mod push;
mod referrers_api;
mod signed;
mod stored;
#[path = "../support/mod.rs"]
mod support;
mod transport;
mod upload_habits;
mod verdicts;

const MIB: usize = 1 << 20;
