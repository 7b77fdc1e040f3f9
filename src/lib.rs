//! obgp-build as a library: each module is a stage, each stage turns one typed value into the next.
//!
//! `config` → `plan` → `base` → `buildkit` → `layout` → `verify` → `report`; only `commands` knows that order.

pub mod base;
pub mod buildkit;
pub mod cli;
pub mod config;
pub mod context;
pub mod dockerfile;
pub mod engine;
pub mod host;
pub mod layout;
pub mod lock;
pub mod platform;
pub mod progress;
pub mod project;
pub mod report;
