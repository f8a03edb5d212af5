//! Systems by their names: a line each.

use super::{
    AnySystem, SystemSpec, circuit, elastic, hamiltonian_chain, hopfield, resistive, stack,
};
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

impl AnySystem {
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
