//! obgp-runtime as a library: one module per subcommand, and what they share.

pub mod agent;
pub mod cli;
pub mod frr_config;
pub mod frr_init;
pub mod health;
pub mod image_repo_sync;
pub mod netlink;
pub mod privsep;
pub mod rt_tables;
pub mod vty;
pub mod vtysh;
