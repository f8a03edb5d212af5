//! The precision that products of signals and weights are made in.

use pnncore_kernels::gemm::{Dense, Strided};
use pnncore_kernels::{Level, Real, bfloat16, gemm};
use serde::Deserialize;

/// How operands of products are rounded. Sums are in the precision of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Precision {
    /// They are not.
    #[default]
    #[serde(skip)]
    Full,
    /// To bfloat16, whose significands have eight bits (Kalamkar et al. 2019, arXiv 1905.12322).
    #[serde(rename = "bfloat16")]
    Bfloat16,
}

impl Precision {
    /// Whether operands are rounded.
    pub fn rounds(self) -> bool {
        self != Self::Full
    }

    /// How many times as fast dense products are as those in full precision.
    pub(crate) fn advantage<T: Real>(self, level: Level) -> usize {
        match self {
            Self::Full => 1,
            Self::Bfloat16 => bfloat16::advantage::<T>(level),
        }
    }

    /// Rounds operands.
    pub(crate) fn round<T: Real>(self, level: Level, values: &mut [T]) {
        if self.rounds() {
            bfloat16::round_all(level, values);
        }
    }

    /// Operands as they are multiplied: rounded, in `memory`, where they are.
    pub(crate) fn rounded<'a, T: Real>(
        self,
        level: Level,
        values: &'a [T],
        memory: &'a mut Vec<T>,
    ) -> &'a [T] {
        if !self.rounds() {
            return values;
        }
        memory.clear();
        memory.extend_from_slice(values);
        self.round(level, memory);
        memory
    }

    /// target += A B, for operands that have been rounded.
    pub(crate) fn multiply<T: Real>(
        self,
        level: Level,
        a: Strided<'_, T>,
        b: Dense<'_, T>,
        shape: (usize, usize, usize),
        target: &mut [T],
    ) {
        match self {
            Self::Full => gemm::multiply(level, a, b, shape, target, shape.2),
            Self::Bfloat16 => bfloat16::multiply(level, a, b, shape, target, shape.2),
        }
    }
}
