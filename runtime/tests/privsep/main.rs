//! `obgp-runtime privsep` with the real sudo and the real oslo.privsep: what it starts, and what it does not.
//!
//! Each test that needs them has a root directory of its own (see `world`), in which the agent's user tries.

mod arguments;
mod helper;
mod refused;
mod world;
