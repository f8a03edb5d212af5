//! Plans of discrete Fourier transforms for an instruction set.

use std::sync::Arc;

use bytemuck::{Pod, cast_slice_mut};
use rustfft::{Fft, FftDirection, FftNum, FftPlannerAvx, FftPlannerNeon, FftPlannerScalar};

use crate::level::{Isa, Level};

/// The sign of the exponents of a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// exp(-2 pi i j k / n).
    Forward,
    /// exp(2 pi i j k / n), without a factor 1 / n.
    Inverse,
}

/// A plan of a transform of one length.
pub trait Plan<T>: Send + Sync {
    /// Transforms rows of complex numbers, each by itself.
    fn process(&self, rows: &mut [T], scratch: &mut [T]);
    /// How many numbers of scratch memory that takes.
    fn scratch(&self) -> usize;
}

struct Planned<T>(Arc<dyn Fft<T>>);

impl<T: FftNum + Pod> Plan<T> for Planned<T> {
    fn process(&self, rows: &mut [T], scratch: &mut [T]) {
        self.0.process_with_scratch(cast_slice_mut(rows), cast_slice_mut(scratch));
    }

    fn scratch(&self) -> usize {
        2 * self.0.get_inplace_scratch_len()
    }
}

/// Plans a transform for an instruction set.
pub(crate) fn plan<T: FftNum + Pod>(
    level: Level,
    len: usize,
    direction: Direction,
) -> Arc<dyn Plan<T>> {
    let direction = match direction {
        Direction::Forward => FftDirection::Forward,
        Direction::Inverse => FftDirection::Inverse,
    };
    let vectors = match level.0 {
        Isa::Portable => FftPlannerNeon::new().ok().map(|mut own| own.plan_fft(len, direction)),
        #[cfg(target_arch = "x86_64")]
        _ => FftPlannerAvx::new().ok().map(|mut own| own.plan_fft(len, direction)),
    };
    let scalar = || FftPlannerScalar::new().plan_fft(len, direction);
    Arc::new(Planned(vectors.unwrap_or_else(scalar)))
}
