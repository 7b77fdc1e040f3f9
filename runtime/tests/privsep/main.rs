//! `obgp-runtime privsep` with the real sudo and the real oslo.privsep: accepted and refused calls.
//!
//! Each test that needs them has its own root directory (see `world`), in which the agent's user makes the calls.

mod arguments;
mod configuration;
mod helper;
mod race;
mod refused;
mod world;
