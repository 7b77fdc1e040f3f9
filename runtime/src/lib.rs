//! obgp-runtime as a library: one module per subcommand, and what they share.

pub mod agent;
pub mod asn;
pub mod cli;
pub mod drain;
pub mod env_file;
pub mod files;
pub mod frr_config;
pub mod frr_init;
pub mod given;
pub mod health;
pub mod image_repo_sync;
pub mod mapping;
pub mod netlink;
pub mod network;
pub mod peer;
pub mod preflight;
pub mod privsep;
pub mod probe;
pub mod report;
pub mod rt_tables;
pub mod sysctl;
pub mod vty;
pub mod vtysh;
