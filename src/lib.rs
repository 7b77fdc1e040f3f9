//! obgp-build as a library: each module is a stage, each stage turns one typed value into the next.
//!
//! `config` → `builders` → `plan` → `base` → `buildkit` → `layout` → `verify` → `report`; only `commands` knows that order.

pub mod attest;
pub mod base;
pub mod build;
pub mod builders;
pub mod buildkit;
pub mod cli;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod image;
pub mod layout;
pub mod oci;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod registry;
pub mod report;
pub mod sign;
pub mod util;
pub mod verify;
