//! Plans of experiments on systems that settle: boundary conditions at the outputs, and phases.

use num_complex::Complex;
use pnncore_kernels::Real;
use smallvec::SmallVec;

use crate::loss::Loss;
use crate::settling::{
    DEFAULT_RELATIVE, DEFAULT_RELATIVE_TO_FREE, INFERENCE_TOLERANCE, MAX_GROWING, Settling, Stop,
};
use crate::states::{Outcome, States, Status};
use crate::{Error, Result};

/// Under which conditions at the outputs a phase settles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Boundary {
    /// Nothing but the inputs acts.
    Free,
    /// The loss, `beta` strong, is added to the energy.
    Nudged(Complex<f64>),
    /// Outputs are held at o + eta (y - o), with o the outputs of the free phase.
    Clamped(f64),
    /// A constant force pulls at the outputs: minus this times the gradient of the loss at the free
    /// outputs.
    Forced(f64),
    /// At the beginning the momenta of the outputs are kicked: by this times the gradient of the
    /// loss at the free outputs. For motions, not for steady states.
    Kicked(f64),
}

/// Where a phase starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At rest.
    Rest,
    /// Where the rows of its states are: at what was kept of another run.
    Given,
    /// Where the phase of this number ended; 0 is the free one.
    After(usize),
    /// Where the phase of this number ended, with time reversed: all momenta have changed their
    /// signs.
    Reversed(usize),
}

/// A phase of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Where it starts.
    pub start: Start,
    /// What acts on the outputs.
    pub boundary: Boundary,
}

/// In words, such as "a nudged phase from where phase 0 ended".
impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let boundary = match self.boundary {
            Boundary::Free => "free",
            Boundary::Nudged(_) => "nudged",
            Boundary::Clamped(_) => "clamped",
            Boundary::Forced(_) => "forced",
            Boundary::Kicked(_) => "kicked",
        };
        write!(f, "a {boundary} phase from ")?;
        match self.start {
            Start::Rest => f.write_str("rest"),
            Start::Given => f.write_str("given states"),
            Start::After(p) => write!(f, "where phase {p} ended"),
            Start::Reversed(p) => write!(f, "phase {p} with time reversed"),
        }
    }
}

impl From<Boundary> for Phase {
    /// From the free state.
    fn from(boundary: Boundary) -> Self {
        Self { start: Start::After(0), boundary }
    }
}

/// Moves outputs a fraction eta of the way to their targets: all of it where eta is one, to the
/// last bit.
pub(crate) fn clamp_towards<T: Real>(eta: f64, targets: &[T], outputs: &mut [T]) {
    let (near, far) = (T::from_f64(eta), T::from_f64(1.0 - eta));
    for (o, &y) in outputs.iter_mut().zip(targets) {
        // From the end that is nearer: rounding errors are those of the shorter way.
        *o = if eta > 0.5 { y + far * (*o - y) } else { *o + near * (y - *o) };
    }
}

/// A list with something for each phase. Most plans have few: then it takes no memory of its own.
pub type OfPhases<E> = SmallVec<[E; 8]>;

/// What a method asks of a system with dynamics: the free phase, then others.
#[derive(Debug, Clone, PartialEq)]
pub struct PhasePlan {
    /// The loss that nudges, and whose gradient measures the output error.
    pub loss: Loss,
    /// Where the free phase starts.
    pub start: Start,
    /// The phases after the free one.
    pub phases: OfPhases<Phase>,
    /// How each is settled.
    pub settling: Settling,
    /// Whether the free states are part of the contrast, and not only where the other phases start.
    pub measures_free: bool,
}

impl PhasePlan {
    /// A free phase alone.
    pub fn free(loss: Loss, settling: Settling) -> Self {
        Self::new(loss, [], settling)
    }

    /// A free phase from rest, and others from the free state; the free states are part of the
    /// contrast.
    pub fn from_free(
        loss: Loss,
        boundaries: impl IntoIterator<Item = Boundary>,
        settling: Settling,
    ) -> Self {
        Self::new(loss, boundaries.into_iter().map(Phase::from), settling)
    }

    /// A free phase from rest, and others; the free states are part of the contrast.
    pub fn new(loss: Loss, phases: impl IntoIterator<Item = Phase>, settling: Settling) -> Self {
        let phases = phases.into_iter().collect();
        Self { loss, start: Start::Rest, phases, settling, measures_free: true }
    }

    /// A free phase alone, settled as far as rounding errors of type `T` allow where nothing else
    /// is said: the implicit function theorem, for one, holds at the steady state, not near it.
    pub fn exact<T: Real>(loss: Loss, settling: Settling) -> Self {
        let stop = match settling.stop {
            Stop::Automatic => Stop::Relative(256.0 * T::EPSILON.to_f64()),
            stop => stop,
        };
        Self::free(loss, Settling { stop, ..settling })
    }

    /// Phases per sample, the free one included.
    pub fn rows_per_sample(&self) -> usize {
        1 + self.phases.len()
    }

    /// Whether states are complex.
    pub fn is_complex(&self) -> bool {
        self.phases
            .iter()
            .any(|phase| matches!(phase.boundary, Boundary::Nudged(beta) if beta.im != 0.0))
    }

    /// Phase number `p`; 0 is the free one.
    pub fn phase(&self, p: usize) -> Phase {
        let free = Phase { start: self.start, boundary: Boundary::Free };
        p.checked_sub(1).map_or(free, |other| self.phases[other])
    }

    /// The boundary of phase `p`; 0 is the free one.
    pub fn boundary(&self, p: usize) -> Boundary {
        self.phase(p).boundary
    }

    /// Makes room for a batch in all phases, at rest, or with the states as they are where some
    /// phase starts at given ones.
    ///
    /// # Errors
    /// [`Error::Shape`] where states are to be given, and are not those of such a batch.
    pub fn begin<T: Real>(&self, samples: usize, states: &mut States<T>) -> Result<()> {
        let (phases, complex) = (self.rows_per_sample(), self.is_complex());
        if !self.starts_at_given() {
            states.reset(samples, phases, complex);
        } else if !states.keep(samples, phases, complex) {
            let (rows, has, of) = (samples * phases, states.rows(), states.phases());
            return Err(Error::Shape(format!(
                "a run that starts at given states needs {rows} rows of {phases} phases, got {has} \
                 of {of}"
            )));
        }
        Ok(())
    }

    /// Whether some phase starts at states that are given.
    pub fn starts_at_given(&self) -> bool {
        (0..self.rows_per_sample()).any(|p| self.phase(p).start == Start::Given)
    }

    /// Whether a row under `boundary` is done, and how, given the displacement that it is to
    /// resolve, and the least part of it that arrives at any layer.
    pub fn verdict<T: Real>(
        &self,
        boundary: Boundary,
        outcome: &Outcome,
        arriving: f64,
        displacement: impl FnOnce() -> Option<f64>,
    ) -> Option<Status> {
        if !outcome.change.is_finite() {
            return Some(Status::Diverged);
        }
        let limit = outcome.sweeps >= self.settling.limit(boundary == Boundary::Free);
        let fixed = !self.settling.stop.is_free();
        if fixed && !limit {
            return None;
        }
        // A fixed number of sweeps says nothing about convergence: judge it by the default rule.
        let stop = if fixed { Stop::Automatic } else { self.settling.stop };
        // Below a few units in the last place sweeps only shuffle rounding errors.
        let size = if outcome.magnitude > 0.0 { outcome.magnitude } else { 1.0 };
        let floor = 16.0 * outcome.rounding.max(T::EPSILON.to_f64() * size);
        let relative = matches!(stop, Stop::Relative(_) | Stop::Automatic);
        // Large errors displace outputs far, but bounded units no farther than their range.
        let displacement = displacement().map(|displacement| displacement.min(size));
        let tolerance = self.tolerance(
            stop,
            displacement.map(|displacement| arriving * displacement),
            arriving * size,
        );
        let tolerance = if relative { tolerance.max(floor) } else { tolerance };
        // Where the number of sweeps is given, the last ones may only have shuffled rounding
        // errors, to more or to less.
        let shuffled = fixed && outcome.growing < MAX_GROWING && outcome.ratio >= 1.0;
        let distance = if relative && !shuffled { outcome.distance() } else { outcome.change };
        if distance <= tolerance || outcome.change <= floor.min(tolerance) {
            return Some(Status::Converged);
        }
        let leaving = boundary != Boundary::Free && !fixed && outcome.growing >= MAX_GROWING;
        (limit || leaving).then_some(Status::Unconverged)
    }

    /// The distance from steady at which a phase ends, however fine, for a displacement to be
    /// resolved (`None`: inference, which is relative to the size of the states). Negative: only
    /// the number of sweeps counts.
    fn tolerance(&self, stop: Stop, displacement: Option<f64>, size: f64) -> f64 {
        match (stop, displacement) {
            (Stop::Sweeps(..), _) => -1.0,
            (Stop::Absolute(tolerance), _) => tolerance,
            (Stop::Relative(fraction), _) => fraction * displacement.unwrap_or(size),
            (Stop::Automatic, None) => INFERENCE_TOLERANCE * size,
            (Stop::Automatic, Some(displacement)) if self.measures_free => {
                DEFAULT_RELATIVE_TO_FREE * displacement
            }
            (Stop::Automatic, Some(displacement)) => DEFAULT_RELATIVE * displacement,
        }
    }

    /// By how much, at least, a phase displaces outputs of this softness (one over their stiffness)
    /// per unit of output error: what it is to resolve. No nudge moves them farther than to their
    /// targets. Of the free phase: the least of the others.
    pub fn reach(&self, boundary: Boundary, softness: f64) -> Option<f64> {
        match boundary {
            Boundary::Nudged(beta) => Some((beta.norm() * softness).min(1.0)),
            Boundary::Forced(strength) => Some((strength.abs() * softness).min(1.0)),
            Boundary::Clamped(eta) => Some(eta.abs()),
            Boundary::Kicked(_) => None,
            Boundary::Free => self
                .phases
                .iter()
                .filter(|phase| phase.boundary != Boundary::Free)
                .filter_map(|phase| self.reach(phase.boundary, softness))
                .reduce(f64::min),
        }
    }
}
