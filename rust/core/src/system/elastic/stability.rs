//! Whether a steady state of an elastic network is a minimum: Cholesky factors of its stiffness
//! matrix (the Hessian of the energy) tell.

use std::ops::Range;

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use rayon::prelude::*;

use super::{Elastic, Source, Spring, Stretched};
use crate::Result;
use crate::loss::Loss;
use crate::params::Params;
use crate::plan::Boundary;
use crate::scratch::Pool;
use crate::states::{Layout, States, Status};
use crate::system::Experiment;
use crate::system::matrix::{Factor, Pattern, Stack};

/// Modes that are softer than this part of the stiffest coordinate cost no energy: in double
/// precision, and in units in the last place otherwise.
const SOFT: f64 = 1e-9;
const SOFT_ULPS: f64 = 64.0;
/// The same, in what settling has left over of forces, on the shortest spring: tensions of that
/// size hold what nothing else holds.
const SOFT_TENSIONS: f64 = 8.0;

/// The stiffness matrix: where the springs are in it.
#[derive(Debug, Clone)]
pub(super) struct Stiffness {
    pattern: Pattern,
    /// The row and column of every state in a row of states.
    numbers: Vec<Option<usize>>,
}

/// What acts on the outputs of a phase.
struct Pull<'a, T> {
    boundary: Boundary,
    loss: Loss,
    /// The outputs of the free phase.
    free: &'a [T],
    /// Where they lie in a row.
    outputs: Range<usize>,
}

/// Memory for one row after the other.
#[derive(Debug, Default)]
struct Memory<T> {
    target: Vec<T>,
    gradient: Vec<T>,
    values: Vec<f64>,
    /// What is left of the forces on all coordinates.
    left: Vec<f64>,
    shifted: Vec<f64>,
    factor: Factor,
    stack: Stack,
}

/// Memory of [`Elastic::judge`], to be kept between calls.
#[derive(Debug)]
pub(super) struct Judgement<T> {
    rows: Pool<Memory<T>>,
}

impl<T> Default for Judgement<T> {
    fn default() -> Self {
        Self { rows: Pool::default() }
    }
}

impl Stiffness {
    pub(super) fn new(
        springs: &[Spring],
        sources: &[Source],
        dimensions: usize,
        layout: &Layout,
    ) -> Result<Self> {
        let mut numbers = vec![None; layout.stride()];
        let states = (0..layout.sizes().len()).flat_map(|l| layout.layer(l));
        states.clone().enumerate().for_each(|(number, k)| numbers[k] = Some(number));
        let mut pairs = Vec::new();
        for spring in springs {
            let ends = moving(sources, dimensions, spring.nodes);
            let ends: Vec<usize> = ends.filter_map(|(_, _, k)| numbers[k]).collect();
            pairs.extend(ends.iter().flat_map(|&i| ends.iter().map(move |&j| (i, j))));
        }
        // A loss may couple outputs.
        let outputs: Vec<usize> = layout.outputs().filter_map(|k| numbers[k]).collect();
        pairs.extend(outputs.iter().flat_map(|&i| outputs.iter().map(move |&j| (i, j))));
        let pattern = Pattern::new(states.count(), pairs.into_iter(), true)?;
        Ok(Self { pattern, numbers })
    }
}

/// The coordinates of two nodes that move: the sign of a spring's direction there, the axis, and
/// the place in a row of states.
fn moving(
    sources: &[Source],
    dimensions: usize,
    (a, b): (usize, usize),
) -> impl Iterator<Item = (f64, usize, usize)> {
    [(a, -1.0), (b, 1.0)].into_iter().flat_map(move |(node, sign)| {
        let sources = sources[node * dimensions..][..dimensions].iter().enumerate();
        sources.filter_map(move |(axis, source)| match source {
            Source::State(k) => Some((sign, axis, *k)),
            Source::Still | Source::Input(_) => None,
        })
    })
}

impl Elastic {
    /// Notes which of the rows that have converged are no minima.
    pub(super) fn judge<T: Real>(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        judgement: &Judgement<T>,
    ) {
        let Experiment { runtime, params, batch, plan, .. } = *experiment;
        let (phases, stride) = (states.phases(), states.stride());
        let outputs = states.layout().outputs();
        let rows = states
            .values
            .par_chunks(phases * stride)
            .zip(states.outcomes.par_chunks_mut(phases))
            .enumerate();
        runtime.for_each(rows, |(i, (values, outcomes))| {
            judgement.rows.with(|memory| {
                let Memory { target, .. } = &mut *memory;
                target.clear();
                target.resize(outputs.len(), T::ZERO);
                let wanted = batch.y.write(i, target);
                for (p, outcome) in outcomes.iter_mut().enumerate() {
                    if outcome.status != Status::Converged {
                        continue;
                    }
                    poll(64 * self.springs.len());
                    let row = &values[p * stride..][..stride];
                    let pull = Pull {
                        boundary: if wanted { plan.boundary(p) } else { Boundary::Free },
                        loss: plan.loss,
                        free: &values[outputs.clone()],
                        outputs: outputs.clone(),
                    };
                    outcome.status = self.status(params, (batch.x.row(i), row), &pull, memory);
                }
            });
        });
    }

    /// What a steady state is: a minimum, one of many, or a saddle point.
    fn status<T: Real>(
        &self,
        params: &Params<'_, T>,
        at: (&[T], &[T]),
        pull: &Pull<'_, T>,
        memory: &mut Memory<T>,
    ) -> Status {
        let pattern = &self.stiffness.pattern;
        let shortest = self.write_stiffness(params, at, memory);
        self.add_pull(at.1, pull, memory);
        let left = memory.left.iter().fold(0.0f64, |m, &f| m.max_magnitude(f));
        let diagonal = (0..pattern.size()).map(|i| memory.values[pattern.place(i, i)].abs());
        let stiffest = diagonal.fold(0.0, f64::max);
        let tension =
            if left > 0.0 && shortest > 0.0 { SOFT_TENSIONS * left / shortest } else { 0.0 };
        let soft = stiffest * SOFT.max(SOFT_ULPS * T::EPSILON.to_f64()) + tension;
        let mut is_positive = |shift: f64| {
            let Memory { values, shifted, factor, stack, .. } = &mut *memory;
            shifted.clone_from(values);
            (0..pattern.size()).for_each(|i| shifted[pattern.place(i, i)] += shift);
            pattern.factorise(shifted, factor, stack)
        };
        if is_positive(-soft) {
            Status::Converged
        } else if soft == 0.0 || is_positive(soft) {
            Status::Floppy
        } else {
            Status::Saddle
        }
    }

    /// Adds what acts on the outputs, at a row of states.
    fn add_pull<T: Real>(&self, row: &[T], pull: &Pull<'_, T>, memory: &mut Memory<T>) {
        let Memory { target, gradient, values, left, .. } = memory;
        let Stiffness { pattern, numbers } = &self.stiffness;
        let Pull { loss, free, ref outputs, .. } = *pull;
        let places = || outputs.clone().map(|k| numbers[k]).enumerate();
        let places = || places().filter_map(|(o, number)| Some((o, number?)));
        let here = &row[outputs.clone()];
        let (strength, at) = match pull.boundary {
            Boundary::Nudged(beta) => (beta.re, here),
            Boundary::Forced(strength) => (strength, free),
            Boundary::Clamped(_) => {
                // Held: apart from all others, and stiff.
                let diagonal = (0..pattern.size()).map(|i| values[pattern.place(i, i)]);
                let stiffest = diagonal.fold(0.0f64, |m, v| m.max_magnitude(v));
                let mut is_held = vec![false; pattern.size()];
                places().for_each(|(_, i)| (is_held[i], left[i]) = (true, 0.0));
                pattern.for_each(|i, j, place| {
                    if is_held[i] || is_held[j] {
                        values[place] = if i == j { stiffest } else { 0.0 };
                    }
                });
                return;
            }
            Boundary::Free | Boundary::Kicked(_) => return,
        };
        gradient.clear();
        gradient.resize(outputs.len(), T::ZERO);
        loss.gradient(at, target, gradient);
        places().for_each(|(o, i)| left[i] += strength * gradient[o].to_f64());
        if let Boundary::Nudged(_) = pull.boundary {
            for (o, i) in places() {
                for (q, j) in places().filter(|&(_, j)| j <= i) {
                    values[pattern.place(i, j)] += strength * loss.curvature(here, target, o, q);
                }
            }
        }
    }

    /// Writes the stiffness matrix at a state, k n n^T along every spring, k (1 - l0 / l) (1 - n
    /// n^T) across it, and what is left of the forces. Returns the length of the shortest spring.
    fn write_stiffness<T: Real>(
        &self,
        params: &Params<'_, T>,
        at: (&[T], &[T]),
        Memory { values, left, .. }: &mut Memory<T>,
    ) -> f64 {
        let Stiffness { pattern, numbers } = &self.stiffness;
        let mut shortest = f64::INFINITY;
        for (sums, size) in [(&mut *values, pattern.len()), (left, pattern.size())] {
            sums.clear();
            sums.resize(size, 0.0);
        }
        for ((spring, k), l0) in self.springs.iter().zip(params.get(0)).zip(params.get(1)) {
            let Stretched { length, direction } = self.stretch(at, spring);
            let (k, l0) = (k.to_f64(), l0.to_f64());
            shortest = shortest.min(length);
            // Springs without rest length resist to either side alike, whatever their length.
            let across = if l0 == 0.0 { 1.0 } else { 1.0 - l0 / length };
            let moving = || moving(&self.sources, self.dimensions, spring.nodes);
            for (sign, axis, place) in moving() {
                if let Some(i) = numbers[place] {
                    left[i] += sign * k * (length - l0) * direction[axis];
                }
                for (other_sign, other_axis, other) in moving() {
                    let (Some(i), Some(j)) = (numbers[place], numbers[other]) else { continue };
                    // The lower triangle is all that is kept.
                    if i < j {
                        continue;
                    }
                    let along = direction[axis] * direction[other_axis];
                    let unit = if axis == other_axis { 1.0 } else { 0.0 };
                    values[pattern.place(i, j)] +=
                        sign * other_sign * k * (along + across * (unit - along));
                }
            }
        }
        shortest
    }
}
