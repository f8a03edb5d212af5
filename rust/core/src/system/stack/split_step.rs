//! The split-step Fourier method: what acts on the spectrum of a field, and what acts point by
//! point, in turn (Agrawal, Nonlinear Fiber Optics).
//!
//! Steps are in Strang's order, half of the first, all of the second, and the other half, where
//! halves that meet are one: the error is of second order, and what is reciprocal stays so.

use num_complex::Complex64;
use pnncore_kernels::fourier::{Direction, Transform, multiply};
use pnncore_kernels::{Level, Real};

use crate::scratch::{Lent, Scratch};

/// What acts on a field point by point, step by step.
pub(super) trait PointStep<T> {
    /// Changes a field as step `step` does.
    fn pass(&self, step: usize, field: &mut [[T; 2]]);

    /// Brings an error back through a step, which a field met as `before`, and adds to what the
    /// loss changes by with parameters. Errors are dL/dRe and dL/dIm.
    fn pull_back(&self, step: usize, before: &[[T; 2]], error: &mut [[T; 2]], gradient: &mut [T]);

    /// Brings a change forward through a step, which a field met as `before`, as parameters move.
    fn push_forward(&self, step: usize, before: &[[T; 2]], change: &mut [[T; 2]]);
}

/// What acts on a spectrum: steps of one length, with factors of absolute value one.
#[derive(Debug, Clone)]
pub(super) struct SplitStep<T> {
    steps: usize,
    /// Factors of half a step and of a whole one, over the number of points, at each frequency in
    /// the order of a transform.
    half: Vec<[T; 2]>,
    whole: Vec<[T; 2]>,
    /// The transforms of so many points.
    pub forward: Transform<T>,
    pub inverse: Transform<T>,
}

/// A field on its way, and memory that transforms take.
struct Way<'a, T: Real> {
    level: Level,
    transforms: Lent<'a, Vec<T>>,
}

impl<T: Real> SplitStep<T> {
    /// So many steps, in each of which the spectrum turns by `phase` radians at every frequency, in
    /// the order of a transform.
    pub(super) fn new(level: Level, steps: usize, phase: &[f64]) -> Self {
        let points = phase.len();
        let factors = |share: f64| -> Vec<[T; 2]> {
            let scale = 1.0 / points as f64;
            let turned = phase.iter().map(|&phase| scale * Complex64::cis(share * phase));
            turned.map(|factor| [T::from_f64(factor.re), T::from_f64(factor.im)]).collect()
        };
        let transform = |direction| Transform::new(level, points, direction);
        Self {
            steps,
            half: factors(0.5),
            whole: factors(1.0),
            forward: transform(Direction::Forward),
            inverse: transform(Direction::Inverse),
        }
    }

    fn points(&self) -> usize {
        self.half.len()
    }

    /// From one step whose field is kept to the next: a tape of as many fields as steps between
    /// them is the shortest.
    fn stride(&self) -> usize {
        (self.steps as f64).sqrt().ceil() as usize
    }

    /// How many numbers of a row [`SplitStep::pass`] keeps for derivatives.
    pub(super) fn tape(&self) -> usize {
        2 * self.points() * self.steps.div_ceil(self.stride())
    }

    fn way<'a>(&self, level: Level, scratch: &'a Scratch<T>) -> Way<'a, T> {
        let transforms = scratch.zeros(self.forward.scratch().max(self.inverse.scratch()));
        Way { level, transforms }
    }

    /// Multiplies the spectrum of a field by factors, or by their conjugates.
    fn turn(
        &self,
        way: &mut Way<'_, T>,
        factors: &[[T; 2]],
        conjugate: bool,
        field: &mut [[T; 2]],
    ) {
        self.forward.process(field.as_flattened_mut(), &mut way.transforms);
        way.level.vectorize(|| multiply(field, factors, conjugate));
        self.inverse.process(field.as_flattened_mut(), &mut way.transforms);
    }

    /// What follows step `step`: half a step of the spectrum at the end, otherwise a whole one.
    fn behind(&self, step: usize) -> &[[T; 2]] {
        if step + 1 == self.steps { &self.half } else { &self.whole }
    }

    /// Sends a field through all steps; some fields on its way go to the tape, unless it is empty.
    pub(super) fn pass(
        &self,
        memory: (Level, &Scratch<T>),
        point_step: &impl PointStep<T>,
        field: &mut [[T; 2]],
        tape: &mut [T],
    ) {
        let mut kept = tape.chunks_exact_mut(2 * self.points());
        self.show(memory, point_step, field, |step, field| {
            if step.is_multiple_of(self.stride()) {
                kept.next().into_iter().for_each(|kept| kept.copy_from_slice(field.as_flattened()));
            }
        });
    }

    /// Sends a field through all steps, and shows it in front of what acts point by point in each.
    pub(super) fn show(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        point_step: &impl PointStep<T>,
        field: &mut [[T; 2]],
        mut see: impl FnMut(usize, &[[T; 2]]),
    ) {
        let mut way = self.way(level, scratch);
        self.turn(&mut way, &self.half, false, field);
        for step in 0..self.steps {
            see(step, field);
            level.vectorize(|| point_step.pass(step, field));
            self.turn(&mut way, self.behind(step), false, field);
        }
    }

    /// Brings the error of what came out back to what went in, and adds to the gradient of
    /// parameters. Fields between those on the tape are found anew.
    pub(super) fn pull_back(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        point_step: &impl PointStep<T>,
        tape: &[T],
        error: &mut [[T; 2]],
        gradient: &mut [T],
    ) {
        let (points, stride) = (self.points(), self.stride());
        let mut way = self.way(level, scratch);
        let mut again = scratch.zeros(2 * points * stride);
        let (again, _) = again.as_chunks_mut::<2>();
        for (segment, kept) in tape.chunks_exact(2 * points).enumerate().rev() {
            let first = segment * stride;
            let count = stride.min(self.steps - first);
            again[..points].copy_from_slice(kept.as_chunks().0);
            for k in 1..count {
                let (before, after) = again.split_at_mut(k * points);
                let field = &mut after[..points];
                field.copy_from_slice(&before[(k - 1) * points..]);
                level.vectorize(|| point_step.pass(first + k - 1, field));
                self.turn(&mut way, &self.whole, false, field);
            }
            for k in (0..count).rev() {
                let (step, before) = (first + k, &again[k * points..(k + 1) * points]);
                self.turn(&mut way, self.behind(step), true, error);
                level.vectorize(|| point_step.pull_back(step, before, error, gradient));
            }
        }
        self.turn(&mut way, &self.half, true, error);
    }

    /// Brings a change of a field forward beside the field itself.
    pub(super) fn push_forward(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        point_step: &impl PointStep<T>,
        field: &mut [[T; 2]],
        change: &mut [[T; 2]],
    ) {
        let mut way = self.way(level, scratch);
        self.turn(&mut way, &self.half, false, field);
        self.turn(&mut way, &self.half, false, change);
        for step in 0..self.steps {
            level.vectorize(|| point_step.push_forward(step, field, change));
            level.vectorize(|| point_step.pass(step, field));
            self.turn(&mut way, self.behind(step), false, field);
            self.turn(&mut way, self.behind(step), false, change);
        }
    }
}

/// The frequencies of a transform of so many points, in cycles a point: those from the middle on
/// are negative.
pub(super) fn frequencies(points: usize) -> impl Iterator<Item = f64> {
    (0..points).map(move |k| {
        let k = k as f64;
        let n = points as f64;
        if 2.0 * k < n { k / n } else { k / n - 1.0 }
    })
}
