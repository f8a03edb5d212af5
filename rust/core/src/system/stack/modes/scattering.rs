//! The response of coupled modes: a complex symmetric matrix, eliminated.
//!
//! M = frequency - detuning - J + i (decay + loss) / 2 has an imaginary part that is positive
//! definite, so that it can be eliminated without exchanges of rows.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::symmetric::{inverse, solve};
use pnncore_kernels::{Level, Real};

use super::spec::Elimination;
use crate::scratch::Scratch;
use crate::system::stack::complex::times;

/// What does not change from row to row: modes in the order of their elimination.
pub(super) struct Response<'a, T> {
    /// The diagonal of M without inputs, real parts and imaginary parts.
    pub(super) diagonal: (&'a [T], &'a [T]),
    /// Square roots of decay rates.
    pub(super) roots: &'a [T],
    /// Couplings between modes that go first and those near them (first, near), and the transpose.
    pub(super) to_near: &'a [T],
    pub(super) from_near: &'a [T],
    /// Couplings within the core (core, core).
    pub(super) within: &'a [T],
}

impl<'a, T: Real> Response<'a, T> {
    /// How many numbers it is made of.
    pub(super) fn len(order: &Elimination) -> usize {
        let (first, core) = (order.first.len(), order.core.len());
        3 * (first + core) + 2 * first * order.near + core * core
    }

    /// What [`Response::len`] numbers hold.
    pub(super) fn of(order: &Elimination, prepared: &'a [T]) -> Self {
        let (first, core) = (order.first.len(), order.core.len());
        let (re, rest) = prepared.split_at(first + core);
        let (im, rest) = rest.split_at(first + core);
        let (roots, rest) = rest.split_at(first + core);
        let (to_near, rest) = rest.split_at(first * order.near);
        let (from_near, within) = rest.split_at(first * order.near);
        Self { diagonal: (re, im), roots, to_near, from_near, within }
    }

    /// Writes the elements s = S - 1 of the scattering matrix between all modes and every port:
    /// port by port, the real parts of all modes in the order of their elimination, then the
    /// imaginary parts. `detunings` are what inputs add, in that order.
    pub(super) fn scatter(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        order: &Elimination,
        detunings: &[T],
        elements: &mut [T],
    ) {
        let (first, core, near) = (order.first.len(), order.core.len(), order.near);
        let (modes, ports) = (first + core, order.ports.len());
        // What the modes that go first leave of light: 1 / M.
        let mut alone = scratch.zeros(2 * first);
        let (alone_re, alone_im) = alone.split_at_mut(first);
        for (j, (re, im)) in alone_re.iter_mut().zip(alone_im.iter_mut()).enumerate() {
            [*re, *im] = inverse([self.diagonal.0[j] - detunings[j], self.diagonal.1[j]]);
        }
        // What is left of M for the core, all real parts of a row, then the imaginary ones.
        let mut matrix = scratch.zeros(2 * core * core);
        self.eliminate_first((level, scratch), order, (alone_re, alone_im), &mut matrix);
        for (k, row) in matrix.chunks_exact_mut((2 * core).max(1)).enumerate() {
            let (re, im) = row.split_at_mut(core);
            let within = &self.within[k * core..][..core];
            re.iter_mut().zip(within).for_each(|(re, &coupling)| *re -= coupling);
            re[k] += self.diagonal.0[first + k] - detunings[first + k];
            im[k] += self.diagonal.1[first + k];
        }
        let mut driven = scratch.zeros(2 * core * ports);
        self.drive(order, (alone_re, alone_im), &mut driven);
        if core > 0 {
            solve(level, &mut matrix, &mut driven, ports);
        }
        // What the core drives in the modes that went first.
        let mut outer = scratch.zeros(2 * first * ports);
        if near > 0 {
            let left = Strided { data: self.to_near, row: near, column: 1 };
            let right = Dense { data: &driven, stride: 2 * ports };
            multiply(level, left, right, (first, near, 2 * ports), &mut outer, 2 * ports);
        }
        for (p, (&port, elements)) in
            order.ports.iter().zip(elements.chunks_exact_mut(2 * modes)).enumerate()
        {
            let (re, im) = elements.split_at_mut(modes);
            for j in 0..modes {
                let [g, h] = if j < first {
                    let own = if j == port { T::ONE } else { T::ZERO };
                    let [a, b] = [outer[2 * j * ports + p] + own, outer[(2 * j + 1) * ports + p]];
                    times([a, b], [alone_re[j], alone_im[j]])
                } else {
                    let k = j - first;
                    [driven[2 * k * ports + p], driven[(2 * k + 1) * ports + p]]
                };
                // s = -i sqrt(decay) G sqrt(decay).
                let root = self.roots[j] * self.roots[port];
                (re[j], im[j]) = (root * h, -(root * g));
            }
        }
    }

    /// Writes what light at every port drives in the core.
    fn drive(&self, order: &Elimination, (alone_re, alone_im): (&[T], &[T]), driven: &mut [T]) {
        let (first, near, ports) = (order.first.len(), order.near, order.ports.len());
        for (p, &port) in order.ports.iter().enumerate() {
            if let Some(k) = port.checked_sub(first) {
                driven[2 * k * ports + p] = T::ONE;
                continue;
            }
            for k in 0..near {
                let coupling = self.to_near[port * near + k];
                driven[2 * k * ports + p] = coupling * alone_re[port];
                driven[(2 * k + 1) * ports + p] = coupling * alone_im[port];
            }
        }
    }

    /// Subtracts from the matrix of the core what light does that passes a mode that goes first.
    fn eliminate_first(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        order: &Elimination,
        (alone_re, alone_im): (&[T], &[T]),
        matrix: &mut [T],
    ) {
        let (first, core, near) = (order.first.len(), order.core.len(), order.near);
        if near == 0 {
            return;
        }
        let mut weighted = scratch.zeros(first * near);
        for (alone, part) in [(alone_re, 0), (alone_im, core)] {
            let rows = weighted.chunks_exact_mut(near).zip(self.to_near.chunks_exact(near));
            for ((weighted, couplings), &alone) in rows.zip(alone) {
                let pairs = weighted.iter_mut().zip(couplings);
                pairs.for_each(|(weighted, &coupling)| *weighted = -(coupling * alone));
            }
            let left = Strided { data: self.from_near, row: first, column: 1 };
            let right = Dense { data: &weighted, stride: near };
            multiply(level, left, right, (near, first, near), &mut matrix[part..], 2 * core);
        }
    }
}
