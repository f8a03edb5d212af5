//! Systems by their names: a line each.

use std::sync::Arc;

use pnncore_kernels::{BothPrecisions, Real};
use serde::de::DeserializeOwned;

use super::{System, circuit, elastic, hamiltonian_chain, hopfield, resistive, stack};
use crate::{Error, Result};

/// All systems that are described by data alone.
static SYSTEMS: &[Entry] = &[
    Entry::of::<hopfield::Spec>(),
    Entry::of::<resistive::Spec>(),
    Entry::of::<circuit::Spec>(),
    Entry::of::<elastic::Spec>(),
    Entry::of::<hamiltonian_chain::Spec>(),
    Entry::of::<stack::Spec>(),
];

/// The description of a system: what makes one, as configurations have it.
pub trait SystemSpec: DeserializeOwned {
    /// The name of the system.
    const NAME: &'static str;

    /// Makes the system.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
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

    /// Makes a system from the text of its description, which is JSON.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name or a description that makes none.
    pub fn build(name: &str, spec: &str) -> Result<Self> {
        let known = || SYSTEMS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let entry = SYSTEMS.iter().find(|entry| entry.name == name);
        (entry
            .ok_or_else(|| {
                Error::Config(format!("unknown system {name:?}, expected one of {}", known()))
            })?
            .build)(spec)
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

/// A system in the list of all.
struct Entry {
    name: &'static str,
    build: fn(&str) -> Result<AnySystem>,
}

impl Entry {
    const fn of<S: SystemSpec>() -> Self {
        let build = |text: &str| {
            let spec: S = serde_json::from_str(text)
                .map_err(|e| Error::Config(format!("{}: {e}", S::NAME)))?;
            spec.build()
        };
        Self { name: S::NAME, build }
    }
}
