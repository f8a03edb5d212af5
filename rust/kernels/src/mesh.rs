//! Light in a mesh of two-port elements: fields of many waveguides, for some rows at once.
//!
//! Every element brings the fields of two waveguides through a matrix of complex numbers. All rows
//! of a waveguide lie together, so that a vector holds one number of several rows, and both
//! waveguides of an element stay in registers while it is passed. Floor, per element and row: 16
//! multiply-adds forward, 44 back (fields retraced, errors, and two gradients).

use crate::level::dispatch;
use crate::simd::{Real, Vector};
use crate::watch::poll;

/// Rows are padded with zeros to a multiple of this.
pub const ROWS: usize = 16;

/// Numbers of an [`Element`] as kernels read it.
pub const NUMBERS: usize = 22;

/// An element that two waveguides pass: an interferometer with a phase shifter in front of the
/// upper waveguide, a coupler, a second shifter in the upper arm, and a second coupler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Element {
    /// The matrix of its fields, row by row: real and imaginary parts.
    pub matrix: [[f64; 2]; 4],
    /// What the two fields in front of it are multiplied by to make the one in the upper arm,
    /// behind the second shifter.
    pub arm: [[f64; 2]; 2],
    /// The second coupler [[c, i s], [i s, c]]: c and s.
    pub coupler: [f64; 2],
    /// The share of power that passes: the matrix is a unitary one times its square root.
    pub power: f64,
}

impl Element {
    /// Writes the element as kernels read it, to [`NUMBERS`] numbers.
    pub fn write<T: Real>(&self, numbers: &mut [T]) {
        let factors = self.matrix.iter().chain(&self.arm);
        for (to, &[re, im]) in numbers.chunks_exact_mut(3).zip(factors) {
            to.copy_from_slice(&[re, im, -im].map(T::from_f64));
        }
        let [c, s] = self.coupler;
        numbers[NUMBERS - 4..].copy_from_slice(&[c, s, -s, 1.0 / self.power].map(T::from_f64));
    }
}

/// The elements of a mesh, in the order in which light meets them.
#[derive(Debug, Clone, Copy)]
pub struct Mesh<'a, T> {
    /// The upper and the lower waveguide of every element, two different ones.
    pub waveguides: &'a [[u32; 2]],
    /// What [`Element::write`] wrote of every one.
    pub elements: &'a [T],
}

impl<T: Real> Mesh<'_, T> {
    /// Checks that fields of `rows` rows are there for all elements, and polls for an interrupt.
    fn check(&self, rows: usize, fields: &[&[T]]) {
        let Self { waveguides, elements } = *self;
        assert!(rows.is_multiple_of(ROWS), "rows must be padded");
        assert!(elements.len() == NUMBERS * waveguides.len(), "elements must all be written");
        let count = fields.iter().map(|fields| fields.len()).min().unwrap_or(0) / (2 * rows).max(1);
        assert!(
            waveguides.iter().all(|&[u, v]| u != v && (u.max(v) as usize) < count),
            "two waveguides of the fields must pass every element"
        );
        poll(16 * rows * waveguides.len());
    }
}

dispatch! {
    /// Brings fields through all elements. `light` holds every waveguide one after the other: the
    /// real parts of `rows` rows, then their imaginary parts.
    ///
    /// # Panics
    /// If rows are not padded to a multiple of [`ROWS`], or fields are missing.
    pub fn propagate<T>(level: Level, mesh: Mesh<'_, T>, rows: usize, light: &mut [T]) =
        propagate_body
}

/// Where the first of the two intensities that [`propagate_and_read`] reads is: that of the upper
/// waveguide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// In front of the element.
    InFront,
    /// Behind it: light comes from the other side.
    Behind,
}

dispatch! {
    /// [`propagate`], which adds two intensities of each element to `sums`, times `weights`, one to
    /// a row: that of the upper waveguide, and that of its upper arm.
    ///
    /// # Panics
    /// As [`propagate`], and if weights or sums are missing.
    pub fn propagate_and_read<T>(
        level: Level,
        mesh: Mesh<'_, T>,
        rows: usize,
        light: &mut [T],
        tap: Tap,
        weights: &[T],
        sums: &mut [T],
    ) = read_body
}

dispatch! {
    /// [`propagate`], which keeps the fields in front of every element: real and imaginary parts of
    /// the upper one, then of the lower one.
    ///
    /// # Panics
    /// As [`propagate`], and if `kept` is not four rows per element long.
    pub fn propagate_and_keep<T>(
        level: Level, mesh: Mesh<'_, T>, rows: usize, light: &mut [T], kept: &mut [T],
    ) = keep_body
}

dispatch! {
    /// The change of fields behind all elements, in `change`, that goes with its value in front and
    /// with changes `along` of phases, two numbers to an element: the first shifter's, and the
    /// second's. `light` passes as by [`propagate`].
    ///
    /// # Panics
    /// As [`propagate`], and if changes are missing.
    pub fn propagate_change<T>(
        level: Level,
        mesh: Mesh<'_, T>,
        rows: usize,
        light: &mut [T],
        change: &mut [T],
        along: &[T],
    ) = change_body
}

dispatch! {
    /// The way back of [`propagate`]: `light`, the fields behind all elements, becomes those in
    /// front; so do `errors`, dL/dRe and dL/dIm of fields; and what a loss changes by with every
    /// phase is added to `gradient`, two numbers to an element: the first shifter's, and the
    /// second's.
    ///
    /// # Panics
    /// As [`propagate`], and if gradients are missing.
    pub fn retrace<T>(
        level: Level,
        mesh: Mesh<'_, T>,
        rows: usize,
        light: &mut [T],
        errors: &mut [T],
        gradient: &mut [T],
    ) = retrace_body
}

dispatch! {
    /// [`retrace`] by the fields that [`propagate_and_keep`] kept: for elements that let so little
    /// through that their inputs cannot be told from their outputs.
    ///
    /// # Panics
    /// As [`propagate`], and if kept fields or gradients are missing.
    pub fn retrace_kept<T>(
        level: Level,
        mesh: Mesh<'_, T>,
        rows: usize,
        kept: &[T],
        errors: &mut [T],
        gradient: &mut [T],
    ) = retrace_kept_body
}

/// A complex number in every lane.
#[derive(Clone, Copy)]
struct Field<V> {
    re: V,
    im: V,
}

/// A complex factor: real part, imaginary part, and its negative.
#[derive(Clone, Copy)]
struct Factor<V>([V; 3]);

// SAFETY of every block below: public functions check that waveguides and numbers are there;
// `dispatch!` vouches for the instruction set.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, for all of them")]
impl<V: Vector> Factor<V> {
    #[inline(always)]
    unsafe fn load(p: *const V::Scalar) -> Self {
        unsafe { Self([V::splat(*p), V::splat(*p.add(1)), V::splat(*p.add(2))]) }
    }

    /// The complex conjugate.
    #[inline(always)]
    fn conj(self) -> Self {
        let Self([re, im, negative]) = self;
        Self([re, negative, im])
    }

    /// self x.
    #[inline(always)]
    unsafe fn times(self, x: Field<V>) -> Field<V> {
        let Self([re, im, negative]) = self;
        unsafe {
            Field { re: negative.mul_add(x.im, re.mul(x.re)), im: im.mul_add(x.re, re.mul(x.im)) }
        }
    }

    /// self x + y.
    #[inline(always)]
    unsafe fn times_plus(self, x: Field<V>, y: Field<V>) -> Field<V> {
        let Self([re, im, negative]) = self;
        unsafe {
            Field {
                re: negative.mul_add(x.im, re.mul_add(x.re, y.re)),
                im: im.mul_add(x.re, re.mul_add(x.im, y.im)),
            }
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
impl<V: Vector> Field<V> {
    #[inline(always)]
    unsafe fn load(p: *const V::Scalar, rows: usize) -> Self {
        unsafe { Self { re: V::load(p), im: V::load(p.add(rows)) } }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut V::Scalar, rows: usize) {
        unsafe {
            self.re.store(p);
            self.im.store(p.add(rows));
        }
    }

    /// |E|^2.
    #[inline(always)]
    unsafe fn intensity(self) -> V {
        unsafe { self.im.mul_add(self.im, self.re.mul(self.re)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self { re: self.re.add(other.re), im: self.im.add(other.im) } }
    }

    /// E times a real number.
    #[inline(always)]
    unsafe fn times(self, by: V) -> Self {
        unsafe { Self { re: by.mul(self.re), im: by.mul(self.im) } }
    }

    /// i E times a real number.
    #[inline(always)]
    unsafe fn turned(self, by: V) -> Self {
        unsafe { Self { re: V::splat(Real::ZERO).sub(by.mul(self.im)), im: by.mul(self.re) } }
    }

    /// What a loss with these errors changes by as the phase of the field does: Re(conj(error) i
    /// E).
    #[inline(always)]
    unsafe fn by_phase(self, error: Self) -> V {
        unsafe { error.im.mul(self.re).sub(error.re.mul(self.im)) }
    }
}

/// Where the fields of the two waveguides of an element are.
#[derive(Clone, Copy)]
struct Pair<T> {
    upper: *mut T,
    lower: *mut T,
    rows: usize,
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
impl<T: Real> Pair<T> {
    #[inline(always)]
    unsafe fn of(light: *mut T, [upper, lower]: [u32; 2], rows: usize) -> Self {
        let at = |waveguide: u32| unsafe { light.add(waveguide as usize * 2 * rows) };
        Self { upper: at(upper), lower: at(lower), rows }
    }

    /// The fields of a vector of rows from row `r` on.
    #[inline(always)]
    unsafe fn load<V: Vector<Scalar = T>>(self, r: usize) -> [Field<V>; 2] {
        let Self { upper, lower, rows } = self;
        unsafe { [Field::load(upper.add(r), rows), Field::load(lower.add(r), rows)] }
    }

    #[inline(always)]
    unsafe fn store<V: Vector<Scalar = T>>(self, r: usize, [x, y]: [Field<V>; 2]) {
        let Self { upper, lower, rows } = self;
        unsafe {
            x.store(upper.add(r), rows);
            y.store(lower.add(r), rows);
        }
    }
}

#[inline(always)]
unsafe fn matrix<V: Vector>(p: *const V::Scalar) -> [Factor<V>; 4] {
    // SAFETY: an element begins with four factors.
    unsafe {
        [Factor::load(p), Factor::load(p.add(3)), Factor::load(p.add(6)), Factor::load(p.add(9))]
    }
}

/// What makes the field in the upper arm.
#[inline(always)]
unsafe fn arm<V: Vector>(p: *const V::Scalar) -> [Factor<V>; 2] {
    // SAFETY: two factors are behind the matrix.
    unsafe { [Factor::load(p.add(12)), Factor::load(p.add(15))] }
}

/// The two fields behind a matrix.
#[inline(always)]
unsafe fn apply<V: Vector>([a, b, c, d]: [Factor<V>; 4], [x, y]: [Field<V>; 2]) -> [Field<V>; 2] {
    // SAFETY: `dispatch!` vouches for the instruction set.
    unsafe { [b.times_plus(y, a.times(x)), d.times_plus(y, c.times(x))] }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
#[inline(always)]
fn propagate_body<V: Vector>(mesh: Mesh<'_, V::Scalar>, rows: usize, light: &mut [V::Scalar]) {
    mesh.check(rows, &[light]);
    let light = light.as_mut_ptr();
    for (&pair, element) in mesh.waveguides.iter().zip(mesh.elements.chunks_exact(NUMBERS)) {
        unsafe {
            let (at, matrix) = (Pair::of(light, pair, rows), matrix::<V>(element.as_ptr()));
            for r in (0..rows).step_by(V::LANES) {
                at.store(r, apply(matrix, at.load(r)));
            }
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
#[inline(always)]
fn keep_body<V: Vector>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    light: &mut [V::Scalar],
    kept: &mut [V::Scalar],
) {
    mesh.check(rows, &[light]);
    assert!(kept.len() == 4 * rows * mesh.waveguides.len(), "lengths differ");
    let light = light.as_mut_ptr();
    let elements =
        mesh.elements.chunks_exact(NUMBERS).zip(kept.chunks_exact_mut((4 * rows).max(1)));
    for (&pair, (element, kept)) in mesh.waveguides.iter().zip(elements) {
        unsafe {
            let (at, matrix) = (Pair::of(light, pair, rows), matrix::<V>(element.as_ptr()));
            let kept = Pair::of(kept.as_mut_ptr(), [0, 1], rows);
            for r in (0..rows).step_by(V::LANES) {
                let fields = at.load(r);
                kept.store(r, fields);
                at.store(r, apply(matrix, fields));
            }
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
#[inline(always)]
fn read_body<V: Vector>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    light: &mut [V::Scalar],
    tap: Tap,
    weights: &[V::Scalar],
    sums: &mut [V::Scalar],
) {
    mesh.check(rows, &[light]);
    assert!(weights.len() == rows && sums.len() == 2 * mesh.waveguides.len(), "lengths differ");
    let (light, weights) = (light.as_mut_ptr(), weights.as_ptr());
    let elements = mesh.elements.chunks_exact(NUMBERS).zip(sums.chunks_exact_mut(2));
    for (&pair, (element, sums)) in mesh.waveguides.iter().zip(elements) {
        unsafe {
            let p = element.as_ptr();
            let (at, matrix, arm) = (Pair::of(light, pair, rows), matrix::<V>(p), arm::<V>(p));
            let mut read = [V::splat(Real::ZERO); 2];
            for r in (0..rows).step_by(V::LANES) {
                let fields = at.load(r);
                let behind = apply(matrix, fields);
                let upper = if tap == Tap::Behind { behind[0] } else { fields[0] };
                let within = arm[1].times_plus(fields[1], arm[0].times(fields[0]));
                let weight = V::load(weights.add(r));
                read[0] = weight.mul_add(upper.intensity(), read[0]);
                read[1] = weight.mul_add(within.intensity(), read[1]);
                at.store(r, behind);
            }
            sums[0] += read[0].sum();
            sums[1] += read[1].sum();
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
#[inline(always)]
fn change_body<V: Vector>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    light: &mut [V::Scalar],
    change: &mut [V::Scalar],
    along: &[V::Scalar],
) {
    mesh.check(rows, &[light, change]);
    assert!(along.len() == 2 * mesh.waveguides.len(), "lengths differ");
    let (light, change) = (light.as_mut_ptr(), change.as_mut_ptr());
    let elements = mesh.elements.chunks_exact(NUMBERS).zip(along.chunks_exact(2));
    for (&pair, (element, along)) in mesh.waveguides.iter().zip(elements) {
        unsafe {
            let p = element.as_ptr();
            let (at, moved) = (Pair::of(light, pair, rows), Pair::of(change, pair, rows));
            let (matrix, arm) = (matrix::<V>(p), arm::<V>(p));
            let [c, s, _] = Factor::<V>::load(p.add(18)).0;
            let [first, second] = [V::splat(along[0]), V::splat(along[1])];
            for r in (0..rows).step_by(V::LANES) {
                let (fields, [mut upper, lower]) = (at.load(r), moved.load(r));
                // A field E changes by i E with its phase: in front of the element, and, through
                // the second coupler, within.
                upper = upper.add(fields[0].turned(first));
                let within = arm[1].times_plus(fields[1], arm[0].times(fields[0])).turned(second);
                let [mut a, mut b] = apply(matrix, [upper, lower]);
                a = a.add(within.times(c));
                b = b.add(within.turned(s));
                moved.store(r, [a, b]);
                at.store(r, apply(matrix, fields));
            }
        }
    }
}

#[inline(always)]
fn retrace_body<V: Vector>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    light: &mut [V::Scalar],
    errors: &mut [V::Scalar],
    gradient: &mut [V::Scalar],
) {
    mesh.check(rows, &[light]);
    back::<V, false>(mesh, rows, light.as_mut_ptr(), errors, gradient);
}

#[inline(always)]
fn retrace_kept_body<V: Vector>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    kept: &[V::Scalar],
    errors: &mut [V::Scalar],
    gradient: &mut [V::Scalar],
) {
    assert!(kept.len() == 4 * rows * mesh.waveguides.len(), "lengths differ");
    // What was kept is only read.
    back::<V, true>(mesh, rows, kept.as_ptr().cast_mut(), errors, gradient);
}

/// Errors go back, and fields with them: as they were KEPT, element by element, or from those
/// behind every element, which are overwritten.
#[allow(clippy::undocumented_unsafe_blocks, reason = "as above")]
#[inline(always)]
fn back<V: Vector, const KEPT: bool>(
    mesh: Mesh<'_, V::Scalar>,
    rows: usize,
    light: *mut V::Scalar,
    errors: &mut [V::Scalar],
    gradient: &mut [V::Scalar],
) {
    mesh.check(rows, &[errors]);
    assert!(gradient.len() == 2 * mesh.waveguides.len(), "lengths differ");
    let errors = errors.as_mut_ptr();
    let elements = mesh.elements.chunks_exact(NUMBERS).zip(gradient.chunks_exact_mut(2));
    for (k, (&pair, (element, gradient))) in mesh.waveguides.iter().zip(elements).enumerate().rev()
    {
        unsafe {
            let p = element.as_ptr();
            let at = if KEPT {
                Pair::of(light.add(4 * rows * k), [0, 1], rows)
            } else {
                Pair::of(light, pair, rows)
            };
            let returning = Pair::of(errors, pair, rows);
            // The conjugate transpose.
            let [a, b, c, d] = matrix::<V>(p);
            let (adjoint, arm) = ([a.conj(), c.conj(), b.conj(), d.conj()], arm::<V>(p));
            let [cos, sin, less] = Factor::<V>::load(p.add(18)).0;
            let regain = (*p.add(21) != Real::ONE).then(|| V::splat(*p.add(21)));
            let mut by_phase = [V::splat(Real::ZERO); 2];
            for r in (0..rows).step_by(V::LANES) {
                let (g, mut x) = (returning.load(r), at.load(r));
                if !KEPT {
                    x = apply(adjoint, x);
                    if let Some(regain) = regain {
                        x = [x[0].times(regain), x[1].times(regain)];
                    }
                    at.store(r, x);
                }
                // Errors in the upper arm, through the conjugate transpose of the second coupler.
                let error = Field::<V> {
                    re: sin.mul_add(g[1].im, cos.mul(g[0].re)),
                    im: less.mul_add(g[1].re, cos.mul(g[0].im)),
                };
                let within = arm[1].times_plus(x[1], arm[0].times(x[0]));
                by_phase[1] = by_phase[1].add(within.by_phase(error));
                let g = apply(adjoint, g);
                by_phase[0] = by_phase[0].add(x[0].by_phase(g[0]));
                returning.store(r, g);
            }
            gradient[0] += by_phase[0].sum();
            gradient[1] += by_phase[1].sum();
        }
    }
}

#[cfg(test)]
mod tests;
