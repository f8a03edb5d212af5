//! Weights as integers of eight bits: reads of which are exact where inputs are integers, too.

use pnncore_kernels::converter::{Levels, convert, largest};
use pnncore_kernels::int8::{self, LARGEST};
use pnncore_kernels::{Level, Real};

/// The weights of an array: integers, packed for products, and what a step of them is worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a, T> {
    pub packed: &'a [T],
    pub step: T,
}

/// The step of weights of which the largest is the largest integer.
pub(crate) fn step_of<T: Real>(level: Level, weights: &[T]) -> T {
    let most = largest(level, weights);
    if most == T::ZERO { T::ONE } else { most / T::from_u32(LARGEST) }
}

/// Makes numbers the integers next to them, in units of a step; where that is not finite, zeros.
pub(crate) fn to_codes<T: Real>(level: Level, step: T, values: &mut [T]) {
    if !step.is_finite() {
        return values.fill(T::ZERO);
    }
    let bound = T::from_u32(LARGEST);
    convert(level, Levels { per_unit: T::ONE / step, step: T::ONE, bound }, &[], values);
}

impl<T: Real> Codes<'_, T> {
    /// Writes the products of rows of inputs, multiples of a step each, of which the range of
    /// converters has so many. A row with what is no number gives none.
    pub(crate) fn multiply(
        &self,
        level: Level,
        (inputs, outputs): (usize, usize),
        input_step: T,
        x: &mut [T],
        y: &mut [T],
    ) {
        let lost: Vec<(usize, T)> = x
            .chunks_exact(inputs)
            .enumerate()
            .filter_map(|(r, x)| Some((r, *x.iter().find(|x| !x.is_finite())?)))
            .collect();
        lost.iter().for_each(|&(r, _)| x[r * inputs..(r + 1) * inputs].fill(T::ZERO));
        to_codes(level, input_step, x);
        let shape = (x.len() / inputs, inputs, outputs);
        int8::multiply_packed(level, x, self.packed, shape, self.step * input_step, y);
        lost.iter().for_each(|&(r, x)| y[r * outputs..(r + 1) * outputs].fill(x));
    }
}
