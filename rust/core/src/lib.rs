//! Physical neural networks: physics, training methods, optimizers.
//!
//! A training method is a set of experiments and a local rule. A [`system`] is the physics, a
//! [`method`] asks it for experiments and combines what they show, an optimizer ([`optim`]) turns
//! that into a change of parameters, and [`train`] does so over batches. Python is nowhere in this
//! crate.
#![forbid(unsafe_code)]

/// The programs in the documents are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/own-systems.md")]
struct OwnSystems;

pub mod analog;
pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod descent;
pub mod device;
mod differences;
pub mod divergence;
pub mod draw;
pub mod error;
pub mod journal;
mod krylov;
pub mod loss;
pub mod memory;
pub mod method;
pub mod optim;
pub mod own_loss;
pub mod params;
pub mod plan;
mod poisson;
pub mod precision;
pub mod runtime;
pub mod scratch;
mod secant;
mod settings;
pub mod settling;
pub mod signal;
pub mod states;
pub mod system;
pub mod train;
pub mod update;

pub use error::{Error, Result};
pub use pnncore_kernels as kernels;
