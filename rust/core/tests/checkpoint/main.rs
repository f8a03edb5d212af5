//! Checkpoints: what is written is read back, and nothing else is.
//!
//! With the long counts (a million mutations, 300 kills, a million power cuts):
//! `PNNCORE_TORTURE=1 cargo test --release -p pnncore --test checkpoint`

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod format;
mod hostile;
mod kill;
mod power;
mod support;
