//! Tests of the whole stage, on archives made on the spot.

mod canonical;
mod crash;
mod exports;
mod hostile;
mod store;
mod support;
mod whiteouts;
