//! Physical neural networks: physics, training methods, optimizers.
#![forbid(unsafe_code)]

pub mod error;

pub use error::{Error, Result};
