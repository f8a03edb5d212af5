//! Fields as kernels take them: all rows of a waveguide together.

use pnncore_kernels::Real;
use pnncore_kernels::mesh::ROWS;

use crate::scratch::{Lent, Scratch};

/// The fields of all waveguides for some rows, padded with dark ones.
pub(super) struct Light<'a, T> {
    /// How many rows there are, with those that pad.
    pub padded: usize,
    /// Waveguide by waveguide: real parts of all rows, then imaginary parts.
    pub fields: Lent<'a, Vec<T>>,
    rows: usize,
}

/// Where complex numbers of a row are: `width` numbers from row to row, real parts from `first` on,
/// imaginary parts `count` later.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub width: usize,
    pub first: usize,
    pub count: usize,
}

impl Place {
    /// Rows of so many complex numbers, and nothing else.
    pub(super) fn all(count: usize) -> Self {
        Self { width: 2 * count, first: 0, count }
    }
}

impl<'a, T: Real> Light<'a, T> {
    /// Dark waveguides.
    pub(super) fn dark(waveguides: usize, rows: usize, scratch: &'a Scratch<T>) -> Self {
        let padded = rows.next_multiple_of(ROWS);
        Self { padded, rows, fields: scratch.zeros(2 * waveguides * padded) }
    }

    /// Sets waveguides from `first` on to the numbers at `place` of rows.
    pub(super) fn set(&mut self, first: usize, rows: &[T], place: Place) {
        for k in 0..place.count {
            let (re, im) = self.waveguide(first + k);
            let numbers = rows.chunks_exact(place.width);
            for ((re, im), numbers) in re.iter_mut().zip(im).zip(numbers) {
                *re = numbers[place.first + k];
                *im = numbers[place.first + place.count + k];
            }
        }
    }

    /// Writes waveguides from `first` on to `place` of rows.
    pub(super) fn write(&self, first: usize, rows: &mut [T], place: Place) {
        let padded = self.padded;
        for k in 0..place.count {
            let own = &self.fields[(first + k) * 2 * padded..][..2 * padded];
            for (r, numbers) in rows.chunks_exact_mut(place.width).enumerate() {
                numbers[place.first + k] = own[r];
                numbers[place.first + place.count + k] = own[padded + r];
            }
        }
    }

    /// Multiplies waveguides from `first` on by complex numbers of absolute value one: cosines and
    /// sines in turn, as they are, or conjugate.
    pub(super) fn turn(&mut self, first: usize, phases: &[T], conjugate: bool) {
        for (k, phase) in phases.chunks_exact(2).enumerate() {
            let (c, s) = (phase[0], if conjugate { -phase[1] } else { phase[1] });
            let (re, im) = self.waveguide(first + k);
            for (re, im) in re.iter_mut().zip(im) {
                (*re, *im) = (c * *re - s * *im, s * *re + c * *im);
            }
        }
    }

    /// Real and imaginary parts of the rows of a waveguide.
    pub(super) fn waveguide(&mut self, k: usize) -> (&mut [T], &mut [T]) {
        let (re, im) =
            self.fields[k * 2 * self.padded..(k + 1) * 2 * self.padded].split_at_mut(self.padded);
        (&mut re[..self.rows], &mut im[..self.rows])
    }
}
