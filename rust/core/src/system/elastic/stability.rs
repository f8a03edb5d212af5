//! Whether a steady state of an elastic network is a minimum: Cholesky factors of its stiffness
//! matrix (the Hessian of the energy) tell.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use rayon::prelude::*;

use super::{Elastic, Source, Spring, Stretched};
use crate::Result;
use crate::params::Params;
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

/// Memory for one row after the other.
#[derive(Debug, Default)]
struct Memory {
    values: Vec<f64>,
    /// What is left of the forces on all coordinates.
    left: Vec<f64>,
    shifted: Vec<f64>,
    factor: Factor,
    stack: Stack,
}

/// Memory of [`Elastic::judge`], to be kept between calls.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    rows: Pool<Memory>,
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
    /// Notes which of the rows that have converged without a nudge are no minima.
    pub(super) fn judge<T: Real>(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        judgement: &Judgement,
    ) {
        let Experiment { runtime, params, batch, .. } = *experiment;
        let (phases, stride) = (states.phases(), states.stride());
        let rows = states
            .values
            .par_chunks(phases * stride)
            .zip(states.outcomes.par_chunks_mut(phases))
            .enumerate();
        runtime.for_each(rows, |(i, (values, outcomes))| {
            if outcomes[0].status == Status::Converged {
                poll(64 * self.springs.len());
                let at = (batch.x.row(i), &values[..stride]);
                outcomes[0].status = judgement.rows.with(|memory| self.status(params, at, memory));
            }
        });
    }

    /// What a steady state is: a minimum, one of many, or a saddle point.
    fn status<T: Real>(
        &self,
        params: &Params<'_, T>,
        at: (&[T], &[T]),
        memory: &mut Memory,
    ) -> Status {
        let pattern = &self.stiffness.pattern;
        let shortest = self.write_stiffness(params, at, memory);
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

    /// Writes the stiffness matrix at a state, k n n^T along every spring, k (1 - l0 / l) (1 - n
    /// n^T) across it, and what is left of the forces. Returns the length of the shortest spring.
    fn write_stiffness<T: Real>(
        &self,
        params: &Params<'_, T>,
        at: (&[T], &[T]),
        Memory { values, left, .. }: &mut Memory,
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
