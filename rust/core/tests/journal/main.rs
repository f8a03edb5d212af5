//! Journals: no shot that was acknowledged is lost, and nothing is read that was not written.
//!
//! With the long counts (a million mutations, 10,000 kills, 50,000 power cuts):
//! `PNNCORE_TORTURE=1 cargo test --release -p pnncore --test journal`

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;
mod faithful;
mod faults;
mod format;
mod hostile;
mod kill;
mod support;
