//! Complex numbers as pairs, and rows of their real parts and then their imaginary parts.

use pnncore_kernels::Real;

/// The product of two.
pub(super) fn times<T: Real>([a, b]: [T; 2], [c, d]: [T; 2]) -> [T; 2] {
    [a * c - b * d, a * d + b * c]
}

/// The conjugate.
pub(super) fn conjugate<T: Real>([re, im]: [T; 2]) -> [T; 2] {
    [re, -im]
}

/// Makes rows of so many conjugate.
pub(super) fn conjugate_rows<T: Real>(rows: &mut [T], count: usize) {
    let rows = rows.chunks_exact_mut(2 * count);
    rows.flat_map(|row| &mut row[count..]).for_each(|im| *im = -*im);
}

/// Copies a row of real parts and imaginary parts to complex numbers.
pub(super) fn interleave<T: Real>(row: &[T], to: &mut [[T; 2]]) {
    let (re, im) = row.split_at(to.len());
    let parts = re.iter().zip(im);
    to.iter_mut().zip(parts).for_each(|(to, (&re, &im))| *to = [re, im]);
}

/// Copies complex numbers to a row of real parts and imaginary parts.
pub(super) fn deinterleave<T: Real>(field: &[[T; 2]], row: &mut [T]) {
    let (re, im) = row.split_at_mut(field.len());
    let parts = re.iter_mut().zip(im);
    parts.zip(field).for_each(|((to_re, to_im), &[re, im])| (*to_re, *to_im) = (re, im));
}
