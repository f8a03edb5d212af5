//! Weights as integers of eight bits: reads of which are exact where inputs are integers, too.

use pnncore_kernels::gemm::Dense;
use pnncore_kernels::int8::{self, LARGEST};
use pnncore_kernels::{Level, Real};

/// The weights of an array: integers, packed for products, and what a step of them is worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a, T> {
    pub packed: &'a [T],
    pub step: T,
}

/// What a step is worth where the largest weight is the largest integer.
pub(crate) fn step_of<T: Real>(largest: T) -> T {
    if largest == T::ZERO { T::ONE } else { largest / T::from_u32(LARGEST) }
}

/// Numbers with an infinite inverse, times this, have a finite one; a power of two leaves their
/// bits.
const RAISE: f64 = (1u64 << 60) as f64;

/// Writes weights as integers, packed.
pub(crate) fn write_codes<T: Real>(
    level: Level,
    weights: Dense<'_, T>,
    shape: (usize, usize),
    step: T,
    packed: &mut [T],
) {
    let per_unit = T::ONE / step;
    if step.abs() > T::ZERO && !per_unit.is_finite() {
        let raise = T::from_f64(RAISE);
        let data: Vec<T> = weights.data.iter().map(|&w| w * raise).collect();
        let raised = Dense { data: &data[..], ..weights };
        return int8::pack(level, raised, shape, T::ONE / (step * raise), packed);
    }
    int8::pack(level, weights, shape, per_unit, packed);
}

impl<T: Real> Codes<'_, T> {
    /// Writes the products of rows of inputs, which are multiples of a step each.
    pub(crate) fn multiply(
        &self,
        level: Level,
        (inputs, outputs): (usize, usize),
        input_step: T,
        x: &[T],
        y: &mut [T],
    ) {
        let shape = (x.len() / inputs, inputs, outputs);
        let inputs = (x, T::ONE / input_step);
        int8::multiply_packed(level, inputs, self.packed, shape, input_step, y);
        // Steps one after the other: their product may be too small a number to be one.
        level.vectorize(|| y.iter_mut().for_each(|y| *y *= self.step));
    }
}
