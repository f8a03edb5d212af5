//! What experiments take of memory, reckoned from their numbers of rows.

use pnncore_kernels::Real;

use super::System;
use super::stack::Stage;
use crate::Result;
use crate::memory::{check, product};

/// Refuses an experiment on `rows` rows (samples times phases) of a system whose states take more
/// than there is, with what layers keep for derivatives.
///
/// # Errors
/// As [`check`](crate::memory::check).
pub fn check_rows<T: Real>(
    system: &dyn System<T>,
    samples: usize,
    phases: usize,
    derivatives: bool,
) -> Result<()> {
    /// States, and what settling keeps beside them.
    const COPIES: usize = 4;
    let stride = system.layout().stride();
    let stages = system.as_stack().map_or(&[][..], |stack| stack.stages());
    let kept =
        stages.iter().map(|stage| signals_of(stage, derivatives)).fold(0, usize::saturating_add);
    let bytes = product(&[
        samples,
        phases,
        stride.saturating_mul(COPIES).saturating_add(kept),
        size_of::<T>(),
    ]);
    check(bytes, || format!("{samples} samples in {phases} phases with {stride} states each"))
}

/// The numbers that a pass of one sample through a layer keeps: signals, errors, and what
/// derivatives need.
fn signals_of<T: Real>(stage: &Stage<T>, derivatives: bool) -> usize {
    let layer = stage.hardware();
    let signals = layer.inputs().saturating_add(layer.outputs()).saturating_mul(2);
    signals.saturating_add(if derivatives { layer.tape().max(stage.twin().tape()) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::super::stack::Spec;
    use super::*;

    /// A long motion, of which a pass keeps only where it is.
    #[test]
    fn only_derivatives_need_what_they_keep() {
        let layer = r#"{"kind": "pendula", "inputs": 3, "time": 1.0, "steps": 100000}"#;
        let spec = format!(
            r#"{{"layers": [{{"layer": {layer}, "noise": null, "mismatch": null}}], "noise": 0.0,
                "mismatch": 0.0, "seed": 3, "numbered": true}}"#
        );
        let stack = serde_json::from_str::<Spec>(&spec)
            .expect("a spec")
            .build_for::<f64>()
            .expect("a stack");
        assert!(check_rows(&stack, 1_000_000, 1, false).is_ok());
        assert!(check_rows(&stack, 1_000_000, 1, true).is_err());
    }
}
