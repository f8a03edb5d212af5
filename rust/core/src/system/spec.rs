//! Descriptions of systems, and what they make: a system for either precision.

use std::sync::Arc;

use pnncore_kernels::{BothPrecisions, Real};
use serde::de::DeserializeOwned;

use super::System;
use crate::Result;

/// The description of a system: what makes one, as configurations have it.
pub trait SystemSpec: DeserializeOwned {
    /// The name of the system.
    const NAME: &'static str;

    /// Makes the system.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), naming the setting, what it is and what it may be.
    fn build(&self) -> Result<AnySystem>;
}

/// A system for states of either precision.
#[derive(Debug, Clone)]
pub struct AnySystem {
    single: Arc<dyn System<f32>>,
    double: Arc<dyn System<f64>>,
}

impl AnySystem {
    /// A system of which there is one for each precision.
    pub fn new(single: impl System<f32> + 'static, double: impl System<f64> + 'static) -> Self {
        Self { single: Arc::new(single), double: Arc::new(double) }
    }

    /// A system that is the same for both.
    pub fn same(system: impl System<f32> + System<f64> + 'static) -> Self {
        let system = Arc::new(system);
        Self { single: system.clone(), double: system }
    }
}

impl BothPrecisions for AnySystem {
    type Of<T: Real> = dyn System<T>;

    fn f32(&self) -> &Self::Of<f32> {
        &*self.single
    }

    fn f64(&self) -> &Self::Of<f64> {
        &*self.double
    }
}
