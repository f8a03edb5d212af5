//! Acceleration of fixed-point sweeps by secants: Anderson's method in its symmetric (type I) form.
//!
//! Sweeps z -> F(z) that bring blocks of units to their minimum in turn are steepest descent, z -
//! F(z) = g(z) being the gradient of the energy left when the other blocks have followed z. Near a
//! minimum g changes linearly, H dz = dg with H symmetric, and the last few sweeps tell H on the
//! span of their steps: there the energy is minimised at once, in the rest of the space the sweep
//! goes on as it was. For a quadratic energy this is conjugate gradients with a short memory (Fang
//! and Saad 2009, section 2.2, with H symmetric); the slow modes of a nearly critical network,
//! which take plain sweeps hundreds of steps, are gone in a few.
//!
//! A step along which the energy curves downward is not extrapolated: there a sweep, which never
//! raises the energy, goes on alone, and so does it after an extrapolation that made the residual
//! larger. Whoever knows the energy takes an extrapolation that raised it [back](Secants::retract).

use std::ops::Range;

use pnncore_kernels::{AVec, Level, Real, add_scaled, avec, dot};

use crate::differences::within;

/// The pairs of steps and gradient differences that are kept.
const DEPTH: usize = 3;

/// Vectors per row: a point, a residual, and the pairs.
const VECTORS: usize = 2 + 2 * DEPTH;

/// The least curvature that is believed, relative to that of one unit alone (which is one): with
/// less, an extrapolation would be far longer than what it was learned from.
const LEAST_CURVATURE: f64 = 1e-3;

/// A sweep that moves a unit by more than this is not extrapolated: far from rest the energy is not
/// quadratic, and an extrapolation may end in the basin of another minimum than the sweeps do.
const FARTHEST: f64 = 0.1;

/// An extrapolation that made |residual|^2 larger by this factor was not worth it: the history is
/// dropped.
const WORSE: f64 = 4.0;

/// The histories of some rows.
#[derive(Debug)]
pub(crate) struct Secants<T> {
    width: usize,
    /// Per row: the point that the sweep under way began from, the residual F(z) - z before it,
    /// then the steps and the differences of residuals.
    vectors: AVec<T>,
    rows: Vec<Row>,
}

/// Where a sweep led.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Advance {
    /// The largest change of a unit from the start of this sweep to that of the next, over the one
    /// before it; `None` after the first sweep.
    pub(crate) ratio: Option<f64>,
    /// Whether the next sweep starts elsewhere than where this one ended.
    pub(crate) extrapolated: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    sweeps: u32,
    pairs: usize,
    /// Where the next pair goes.
    next: usize,
    /// |residual|^2 of the sweep before.
    square: f64,
    /// The largest change of a unit that the last step made.
    step: f64,
    /// step_i . (gradient difference)_j, symmetrised.
    curvature: [[f64; DEPTH]; DEPTH],
}

impl<T: Real> Default for Secants<T> {
    fn default() -> Self {
        Self { width: 0, vectors: avec![], rows: Vec::new() }
    }
}

impl<T: Real> Secants<T> {
    /// Forgets everything, and makes room for `rows` histories of `width` units.
    pub(crate) fn reset(&mut self, rows: usize, width: usize) {
        self.width = width;
        self.rows.clear();
        self.rows.resize(rows, Row::default());
        let len = rows * width * VECTORS;
        if self.vectors.len() < len {
            self.vectors.resize(len, T::ZERO);
        }
    }

    /// Gives row `to` what row `from` has learned of the curvature: phases of one sample see the
    /// same energy but for the nudge.
    pub(crate) fn inherit(&mut self, from: usize, to: usize) {
        let (width, row) = (self.width, self.rows[from]);
        let (from, start) = (from * width * VECTORS, to * width * VECTORS);
        // The oldest pair would be overwritten by the first step.
        for k in 1..=row.pairs.min(DEPTH - 1) {
            let pair = (row.next + DEPTH - k) % DEPTH;
            for vector in [2 + pair, 2 + DEPTH + pair] {
                let span = from + vector * width..from + (vector + 1) * width;
                self.vectors.copy_within(span, start + vector * width);
            }
        }
        self.rows[to] = Row { pairs: row.pairs.min(DEPTH - 1), ..row };
    }

    /// Notes that row `r` starts from `point`.
    pub(crate) fn start(&mut self, r: usize, point: &[T]) {
        let width = self.width;
        self.vectors[r * width * VECTORS..][..width].copy_from_slice(point);
        self.rows[r].sweeps = 0;
    }

    /// Writes the end point of the last sweep of row `r`, from which [`Self::advance`] has
    /// extrapolated, and forgets what led there: the next sweep starts from that point.
    pub(crate) fn retract(&mut self, r: usize, swept: &mut [T]) {
        let (width, row) = (self.width, &mut self.rows[r]);
        let vectors = &self.vectors[r * width * VECTORS..][..width * VECTORS];
        let step = &vectors[(2 + row.next) * width..][..width];
        let residual = &vectors[width..2 * width];
        for (((to, &point), &step), &residual) in
            swept.iter_mut().zip(&vectors[..width]).zip(step).zip(residual)
        {
            *to = point - step + residual;
        }
        (row.pairs, row.next) = (0, 0);
        self.start(r, swept);
    }

    /// Takes in the end point `swept` of a sweep of row `r` and moves it to where the next sweep
    /// should start; the first `bounded` units stay within `walls`.
    pub(crate) fn advance(
        &mut self,
        level: Level,
        r: usize,
        swept: &mut [T],
        bounded: usize,
        walls: (f64, f64),
    ) -> Advance {
        let (width, row) = (self.width, &mut self.rows[r]);
        let vectors = &mut self.vectors[r * width * VECTORS..][..width * VECTORS];
        let (point, rest) = vectors.split_at_mut(width);
        let (residual, rest) = rest.split_at_mut(width);
        let (steps, differences) = rest.split_at_mut(DEPTH * width);
        let mut history = History { level, width, point, residual, steps, differences };
        let moved = history.take_in(row, swept);
        let used = history.extrapolate(row, moved <= T::from_f64(FARTHEST), swept);
        for to in &mut swept[..bounded] {
            *to = within(*to, walls.0, walls.1);
        }
        let largest = history.note_step(row, swept);
        let before = std::mem::replace(&mut row.step, largest.to_f64());
        Advance { ratio: (row.sweeps > 1).then(|| row.step / before), extrapolated: used > 0 }
    }
}

/// The vectors of a row.
struct History<'a, T> {
    level: Level,
    width: usize,
    /// Where the sweep under way started.
    point: &'a mut [T],
    /// What the sweep before changed.
    residual: &'a mut [T],
    steps: &'a mut [T],
    differences: &'a mut [T],
}

impl<T: Real> History<'_, T> {
    fn slot(&self, i: usize) -> Range<usize> {
        i * self.width..(i + 1) * self.width
    }

    /// Completes the newest pair by the end point of a sweep, and notes its curvatures; gives the
    /// largest change of the sweep.
    fn take_in(&mut self, row: &mut Row, swept: &[T]) -> T {
        // The new pair's step was written when the last extrapolation was made.
        let newest = row.next;
        let place = self.slot(newest);
        let mut moved = T::ZERO;
        for (((d, old), &end), &begin) in self.differences[place.clone()]
            .iter_mut()
            .zip(self.residual.iter_mut())
            .zip(swept)
            .zip(&*self.point)
        {
            let new = end - begin;
            *d = *old - new;
            *old = new;
            moved = moved.max_magnitude(new);
        }
        let square = dot(self.level, self.residual, self.residual).to_f64();
        let first = row.sweeps == 0;
        let worse = !first && square > WORSE * row.square;
        row.square = square;
        row.sweeps += 1;
        if worse {
            row.pairs = 0;
            row.next = 0;
        } else if !first {
            row.pairs = (row.pairs + 1).min(DEPTH);
            row.next = (newest + 1) % DEPTH;
            for i in 0..row.pairs {
                let own = self.slot(i);
                let product = |step: Range<usize>, difference: Range<usize>| -> f64 {
                    dot(self.level, &self.steps[step], &self.differences[difference]).to_f64()
                };
                let forth = product(own.clone(), place.clone());
                let back = product(place.clone(), own);
                row.curvature[i][newest] = 0.5 * (forth + back);
                row.curvature[newest][i] = 0.5 * (forth + back);
            }
        }
        moved
    }

    /// Moves the end point of a sweep along the pairs, where it is `near`; gives along how many.
    fn extrapolate(&self, row: &Row, near: bool, swept: &mut [T]) -> usize {
        let mut slope = [0.0; DEPTH];
        let mut pairs = [0; DEPTH];
        let step = |i: usize| &self.steps[self.slot(i)];
        // The newest first: the oldest is what is given up where they are not independent.
        for (k, pair) in pairs.iter_mut().take(row.pairs).enumerate() {
            *pair = (row.next + DEPTH - 1 - k) % DEPTH;
            slope[k] = dot(self.level, step(*pair), self.residual).to_f64();
        }
        let squares = |i: usize| dot(self.level, step(i), step(i)).to_f64();
        let among = &pairs[..if near { row.pairs } else { 0 }];
        let (weights, used) = solve(&row.curvature, among, &slope, squares);
        for (&pair, &weight) in pairs.iter().zip(&weights).take(used) {
            let difference = &self.differences[self.slot(pair)];
            add_scaled(self.level, step(pair), T::from_f64(weight), swept);
            add_scaled(self.level, difference, T::from_f64(-weight), swept);
        }
        used
    }

    /// Notes the step to where the next sweep starts; gives the largest change of a unit.
    fn note_step(&mut self, row: &Row, swept: &[T]) -> T {
        let (mut largest, place) = (T::ZERO, self.slot(row.next));
        let steps = self.steps[place].iter_mut();
        for ((&to, from), step) in swept.iter().zip(self.point.iter_mut()).zip(steps) {
            *step = to - *from;
            *from = to;
            largest = largest.max_magnitude(*step);
        }
        largest
    }
}

/// Solves the symmetric system C w = slope over `pairs` by Cholesky's method, and stops before the
/// first pair that adds no trustworthy curvature. Returns the weights, and over how many pairs they
/// are.
fn solve(
    curvature: &[[f64; DEPTH]; DEPTH],
    pairs: &[usize],
    slope: &[f64; DEPTH],
    squares: impl Fn(usize) -> f64,
) -> ([f64; DEPTH], usize) {
    let mut factor = [[0.0; DEPTH]; DEPTH];
    let mut used = 0;
    for (k, &pair) in pairs.iter().enumerate() {
        for j in 0..k {
            let inner: f64 = (0..j).map(|i| factor[k][i] * factor[j][i]).sum();
            factor[k][j] = (curvature[pair][pairs[j]] - inner) / factor[j][j];
        }
        let pivot = curvature[pair][pair] - factor[k][..k].iter().map(|x| x * x).sum::<f64>();
        if pivot.is_nan() || pivot <= LEAST_CURVATURE * squares(pair) {
            break;
        }
        factor[k][k] = pivot.sqrt();
        used = k + 1;
    }
    let mut weights = *slope;
    for k in 0..used {
        for j in 0..k {
            weights[k] -= factor[k][j] * weights[j];
        }
        weights[k] /= factor[k][k];
    }
    for k in (0..used).rev() {
        for j in k + 1..used {
            weights[k] -= factor[j][k] * weights[j];
        }
        weights[k] /= factor[k][k];
    }
    (weights, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sweeps that z -> z - H z takes from (1, 2, 3, ...) / 100 n to |z| < 1e-11, H having
    /// these eigenvalues in a turned frame.
    fn sweeps(eigenvalues: &[f64], accelerate: bool) -> usize {
        let n = eigenvalues.len();
        // A Householder reflection turns the frame.
        let axis: Vec<f64> = (0..n).map(|i| (1.0 + i as f64) / (100 * n) as f64).collect();
        let square: f64 = axis.iter().map(|a| a * a).sum();
        let turn = |v: &[f64]| -> Vec<f64> {
            let along: f64 = v.iter().zip(&axis).map(|(v, a)| v * a).sum();
            v.iter().zip(&axis).map(|(v, a)| v - 2.0 * along * a / square).collect()
        };
        let mut secants = Secants::<f64>::default();
        secants.reset(1, n);
        let mut z = axis.clone();
        secants.start(0, &z);
        for k in 0..100_000 {
            if z.iter().all(|z| z.abs() < 1e-11) {
                return k;
            }
            let turned: Vec<f64> =
                turn(&z).iter().zip(eigenvalues).map(|(z, h)| z * (1.0 - h)).collect();
            z = turn(&turned);
            if accelerate {
                secants.advance(Level::get(), 0, &mut z, 0, (0.0, 0.0));
            }
        }
        usize::MAX
    }

    #[test]
    fn quadratic_energies_take_few_sweeps() {
        // As many distinct eigenvalues other than one (which a plain sweep settles) as are kept,
        // and one sweep more.
        assert!(sweeps(&[0.01, 0.3, 0.6, 1.0, 1.0, 1.0], true) <= 6);
        // More than are kept: short-memory conjugate gradients.
        let many: Vec<f64> = (0..40).map(|i| 0.02 + 0.98 * f64::from(i) / 39.0).collect();
        let (fast, plain) = (sweeps(&many, true), sweeps(&many, false));
        assert!(fast * 4 < plain, "{fast} and {plain} sweeps");
    }

    #[test]
    fn downward_curvature_is_left_to_plain_sweeps() {
        let mut secants = Secants::<f64>::default();
        secants.reset(1, 1);
        // F(z) = 1.5 z leaves the maximum at zero, and so must the accelerated sweeps.
        let mut z = [0.1];
        secants.start(0, &z);
        for _ in 0..8 {
            let swept = 1.5 * z[0];
            z[0] = swept;
            secants.advance(Level::get(), 0, &mut z, 0, (0.0, 0.0));
            assert_eq!(z[0], swept);
        }
    }

    #[test]
    fn extrapolations_can_be_taken_back() {
        let mut secants = Secants::<f64>::default();
        secants.reset(1, 2);
        let mut z = [0.1, 0.2];
        secants.start(0, &z);
        for _ in 0..3 {
            let swept = [0.5 * z[0], 0.9 * z[1]];
            z = swept;
            if secants.advance(Level::get(), 0, &mut z, 0, (0.0, 0.0)).extrapolated {
                let mut back = [0.0; 2];
                secants.retract(0, &mut back);
                assert!(
                    back.iter().zip(swept).all(|(a, b)| (a - b).abs() < 1e-15),
                    "{back:?} {swept:?}"
                );
                z = back;
                let after = [0.5 * z[0], 0.9 * z[1]];
                z = after;
                assert_eq!(
                    secants.advance(Level::get(), 0, &mut z, 0, (0.0, 0.0)),
                    Advance { ratio: None, extrapolated: false }
                );
                assert_eq!(z, after);
                return;
            }
        }
        panic!("nothing was extrapolated");
    }

    #[test]
    fn walls_hold_and_nan_passes() {
        let mut secants = Secants::<f32>::default();
        secants.reset(1, 2);
        let mut z = [0.5f32, 0.5];
        secants.start(0, &z);
        for swept in [[0.6, 0.4], [0.68, 0.32], [f32::NAN, 0.3]] {
            z = swept;
            secants.advance(Level::get(), 0, &mut z, 2, (0.0, 1.0));
            assert!(z.iter().all(|z| z.is_nan() || (0.0..=1.0).contains(z)));
        }
        assert!(z[0].is_nan());
    }
}
