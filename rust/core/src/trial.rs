//! Experiments on systems that settle: what is asked (plan) and what came out (trial).

use num_complex::Complex;
use pnncore_kernels::{AVec, Real, avec};
use serde::{Deserialize, Serialize};

use crate::loss::Loss;
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
    /// A constant force pulls at the outputs: minus this times the gradient of the loss at the free outputs.
    Forced(f64),
}

/// Moves outputs a fraction eta of the way to their targets: all of it where eta is one, to the last bit.
pub(crate) fn clamp_towards<T: Real>(eta: f64, targets: &[T], outputs: &mut [T]) {
    let (near, far) = (T::from_f64(eta), T::from_f64(1.0 - eta));
    for (o, &y) in outputs.iter_mut().zip(targets) {
        // From the end that is nearer: rounding errors are those of the shorter way.
        *o = if eta > 0.5 { y + far * (*o - y) } else { *o + near * (y - *o) };
    }
}

/// In which order the units of a layered system are brought to their minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Every other layer, then the layers between: exact block minimisation, which never raises the energy.
    #[default]
    Asynchronous,
    /// All layers from the previous states at once. May oscillate.
    Synchronous,
}

/// How nudged outputs move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputUpdate {
    /// To the minimum of the nudged energy given the rest.
    #[default]
    Exact,
    /// a - beta dC/do at the previous outputs, as published code does; the same fixed point.
    Explicit,
}

/// When a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// When the states are as near to steady as this fraction of the displacement that the phase is to measure: |beta|
    /// times the sample's output error over the stiffness of the outputs (or eta times it, where outputs are clamped). The
    /// distance is estimated from the last two sweeps: if they moved units by c' and then by c = q c', what is left is
    /// c q / (1 - q).
    ///
    /// Inference, which has no displacement, takes it as a fraction of the largest state.
    Relative(f64),
    /// When no unit moved by more than this in a sweep.
    Absolute(f64),
    /// After a number of sweeps, whatever has been reached: (free, nudged).
    Sweeps(u32, u32),
    /// [`Stop::Relative`] at [`DEFAULT_RELATIVE`] or [`DEFAULT_RELATIVE_TO_FREE`]; inference: at [`INFERENCE_TOLERANCE`].
    #[default]
    Automatic,
}

impl Stop {
    /// Whether phases end by themselves, and not after a given number of sweeps.
    pub fn is_free(self) -> bool {
        !matches!(self, Self::Sweeps(..))
    }
}

/// The fraction of [`Stop::Relative`] by default: the gradient is then less than 1 % off (a test measures it).
pub const DEFAULT_RELATIVE: f64 = 0.004;

/// The same where the free states are part of the contrast: their error, of another size than that of the phases that start
/// from them, is not taken away by it.
pub const DEFAULT_RELATIVE_TO_FREE: f64 = 0.0025;

/// Sweeps in a row, each moving more than the one before, after which a phase other than the free one is stopped: it is
/// leaving the basin of the free state, and would end where its contrast with the others is no derivative of anything.
pub const MAX_GROWING: u32 = 5;

/// The most sweeps of a nudged or clamped phase by default.
pub const MAX_NUDGED: u32 = 200;

/// How near to steady inference stops, in units of the largest state.
pub const INFERENCE_TOLERANCE: f64 = 1e-4;

/// How a system is settled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Settling {
    /// When a phase ends.
    pub stop: Stop,
    /// The largest number of sweeps of a phase that stops by tolerance: (free, any other).
    pub max_sweeps: (u32, u32),
    /// The order of updates.
    pub order: Order,
    /// How nudged outputs move.
    pub output_update: OutputUpdate,
}

impl Default for Settling {
    fn default() -> Self {
        Self {
            stop: Stop::Automatic,
            max_sweeps: (10_000, MAX_NUDGED),
            order: Order::default(),
            output_update: OutputUpdate::default(),
        }
    }
}

impl Settling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let positive = |name: &str, x: f64| {
            if x > 0.0 && x.is_finite() {
                Ok(())
            } else {
                Err(Error::Config(format!("{name} must be a positive number, got {x}")))
            }
        };
        match self.stop {
            Stop::Relative(x) => positive("relative tolerance", x),
            Stop::Absolute(x) => positive("tolerance", x),
            Stop::Sweeps(free, nudged) if free == 0 || nudged == 0 => {
                Err(Error::Config(format!("sweeps must be at least 1, got ({free}, {nudged})")))
            }
            _ if self.max_sweeps.0 == 0 || self.max_sweeps.1 == 0 => {
                Err(Error::Config(format!("max_sweeps must be at least 1, got {:?}", self.max_sweeps)))
            }
            _ => Ok(()),
        }
    }

    /// The largest number of sweeps of a phase.
    pub fn limit(&self, boundary: Boundary) -> u32 {
        let (free, other) = match self.stop {
            Stop::Sweeps(free, nudged) => (free, nudged),
            _ => self.max_sweeps,
        };
        if boundary == Boundary::Free { free } else { other }
    }
}

/// What a method asks of a system that settles: the free phase, then every other phase from the free state.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The loss that nudges, and whose gradient measures the output error.
    pub loss: Loss,
    /// The phases after the free one.
    pub phases: Vec<Boundary>,
    /// How each is settled.
    pub settling: Settling,
    /// Whether the free states are part of the contrast, and not only where the other phases start.
    pub measures_free: bool,
}

impl Plan {
    /// A free phase alone.
    pub fn free(loss: Loss, settling: Settling) -> Self {
        Self { loss, phases: Vec::new(), settling, measures_free: true }
    }

    /// Phases per sample, the free one included.
    pub fn rows_per_sample(&self) -> usize {
        1 + self.phases.len()
    }

    /// Whether states are complex.
    pub fn is_complex(&self) -> bool {
        self.phases.iter().any(|phase| matches!(phase, Boundary::Nudged(beta) if beta.im != 0.0))
    }

    /// The boundary of phase `p`; 0 is the free one.
    pub fn boundary(&self, p: usize) -> Boundary {
        if p == 0 { Boundary::Free } else { self.phases[p - 1] }
    }

    /// Whether a row under `boundary` is done, and how, given the displacement that it is to resolve.
    pub fn verdict<T: Real>(
        &self,
        boundary: Boundary,
        outcome: &Outcome,
        displacement: impl FnOnce() -> Option<f64>,
    ) -> Option<Status> {
        if !outcome.change.is_finite() {
            return Some(Status::Diverged);
        }
        let limit = outcome.sweeps >= self.settling.limit(boundary);
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
        let tolerance = self.tolerance(stop, displacement, size);
        let tolerance = if relative { tolerance.max(floor) } else { tolerance };
        // Where the number of sweeps is given, the last ones may only have shuffled rounding errors, to more or to less.
        let shuffled = fixed && outcome.growing < MAX_GROWING && outcome.ratio >= 1.0;
        let distance = if relative && !shuffled { outcome.distance() } else { outcome.change };
        if distance <= tolerance || outcome.change <= floor.min(tolerance) {
            return Some(Status::Converged);
        }
        let leaving = boundary != Boundary::Free && !fixed && outcome.growing >= MAX_GROWING;
        (limit || leaving).then_some(Status::Unconverged)
    }

    /// The distance from steady at which a phase ends, however fine, for a displacement to be resolved (`None`: inference,
    /// which is relative to the size of the states). Negative: only the number of sweeps counts.
    fn tolerance(&self, stop: Stop, displacement: Option<f64>, size: f64) -> f64 {
        match (stop, displacement) {
            (Stop::Sweeps(..), _) => -1.0,
            (Stop::Absolute(tolerance), _) => tolerance,
            (Stop::Relative(fraction), _) => fraction * displacement.unwrap_or(size),
            (Stop::Automatic, None) => INFERENCE_TOLERANCE * size,
            (Stop::Automatic, Some(displacement)) if self.measures_free => DEFAULT_RELATIVE_TO_FREE * displacement,
            (Stop::Automatic, Some(displacement)) => DEFAULT_RELATIVE * displacement,
        }
    }

    /// By how much, at least, a phase displaces outputs of this softness (one over their stiffness) per unit of output
    /// error: what it is to resolve. No nudge moves them farther than to their targets. Of the free phase: the least of the
    /// others.
    pub fn reach(&self, boundary: Boundary, softness: f64) -> Option<f64> {
        match boundary {
            Boundary::Nudged(beta) => Some((beta.norm() * softness).min(1.0)),
            Boundary::Forced(strength) => Some((strength.abs() * softness).min(1.0)),
            Boundary::Clamped(eta) => Some(eta.abs()),
            Boundary::Free => self
                .phases
                .iter()
                .filter(|&&phase| phase != Boundary::Free)
                .filter_map(|&phase| self.reach(phase, softness))
                .reduce(f64::min),
        }
    }
}

/// How a row of a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Status {
    /// The stopping rule was met.
    #[default]
    Converged = 0,
    /// The sweeps ran out before the tolerance was met.
    Unconverged = 1,
    /// A state became NaN or infinite. The row is blank and contributes nothing.
    Diverged = 2,
    /// The energy has no minimum under this boundary. The row is blank and contributes nothing.
    Unbounded = 3,
}

impl Status {
    /// All statuses, by their number.
    pub const ALL: [Self; 4] = [Self::Converged, Self::Unconverged, Self::Diverged, Self::Unbounded];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Unconverged => "unconverged",
            Self::Diverged => "diverged",
            Self::Unbounded => "unbounded",
        }
    }

    /// Whether the row holds states that mean something.
    pub fn usable(self) -> bool {
        matches!(self, Self::Converged | Self::Unconverged)
    }
}

/// What is known of a row besides its states.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Sweeps it took.
    pub sweeps: u32,
    /// The largest change of a unit in the last sweep.
    pub change: f64,
    /// By how much more the next sweep is expected to change, as a ratio: that of the last two, or what an accelerated
    /// walk knows better. 0: nothing is expected.
    pub ratio: f64,
    /// Sweeps in a row up to the last that each changed more than the one before.
    pub growing: u32,
    /// The largest state, which inference and rounding errors are measured by; 0 where states are of order one.
    pub magnitude: f64,
    /// By how much rounding errors move states, where that is more than their size says.
    pub rounding: f64,
}

impl Outcome {
    /// Notes a sweep and the largest change it made.
    pub fn sweep(&mut self, change: f64) {
        self.ratio = if self.sweeps > 0 { change / self.change } else { 0.0 };
        self.growing = if self.ratio > 1.0 { self.growing + 1 } else { 0 };
        self.change = change;
        self.sweeps += 1;
    }

    /// Notes how large the states are, where they are larger than before.
    pub fn see_magnitude<T: Real>(&mut self, states: &[T]) {
        let largest = states.iter().fold(T::ZERO, |m, &s| m.max_magnitude(s)).to_f64();
        self.magnitude = self.magnitude.max_magnitude(largest);
    }

    /// An estimate of how far the states are from steady: the changes to come, were they to go on shrinking like this.
    pub fn distance(&self) -> f64 {
        if self.change == 0.0 {
            return 0.0;
        }
        let ratio = self.ratio;
        if ratio < 1.0 { self.change * (ratio / (1.0 - ratio)).max(1.0) } else { f64::INFINITY }
    }
}

/// Where the layers of a system lie in a row of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    sizes: Vec<usize>,
    offsets: Vec<usize>,
    stride: usize,
}

/// Layers start at multiples of this many elements: a cache line of f32.
const ALIGN: usize = 16;

impl Layout {
    /// A layout of layers of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        let mut offsets = Vec::with_capacity(sizes.len());
        let mut stride = 0;
        for size in sizes {
            offsets.push(stride);
            stride += size.next_multiple_of(ALIGN);
        }
        Self { sizes: sizes.to_vec(), offsets, stride }
    }

    /// The sizes of the layers, outputs last.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Elements per row, padding included.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where layer `l` lies in a row.
    pub fn layer(&self, l: usize) -> std::ops::Range<usize> {
        self.offsets[l]..self.offsets[l] + self.sizes[l]
    }

    /// Where layer `l` lies in a row, with the zeros that fill it up to [`Self::padded`] elements.
    pub fn padded_layer(&self, l: usize) -> std::ops::Range<usize> {
        self.offsets[l]..self.offsets[l] + self.padded(l)
    }

    /// The size of layer `l`, padding included.
    pub fn padded(&self, l: usize) -> usize {
        self.sizes[l].next_multiple_of(ALIGN)
    }

    /// Where the outputs lie in a row.
    pub fn outputs(&self) -> std::ops::Range<usize> {
        self.layer(self.sizes.len() - 1)
    }
}

/// The states of a batch: for each sample one row per phase, the free one first.
///
/// Row `i * phases + p` is phase `p` of sample `i`, so that the rows of some samples are one piece of memory. Where the
/// plan is complex, a row holds the real parts of all layers, then the imaginary parts.
#[derive(Debug, Clone)]
pub struct Trial<T> {
    layout: Layout,
    phases: usize,
    complex: bool,
    /// The states, row by row, [`Trial::stride`] elements apart.
    pub states: AVec<T>,
    /// One outcome per row.
    pub outcomes: Vec<Outcome>,
}

impl<T: Real> Trial<T> {
    /// A trial without rows.
    pub fn new(layout: Layout) -> Self {
        Self { layout, phases: 1, complex: false, states: avec![], outcomes: Vec::new() }
    }

    /// Makes room for a batch, the free states at rest (zero): other phases start from where these end. Keeps the memory.
    pub fn reset(&mut self, samples: usize, phases: usize, complex: bool) {
        self.phases = phases;
        self.complex = complex;
        let rows = samples * phases;
        let stride = self.stride();
        let kept = self.states.len().min(rows * stride);
        self.states.resize(rows * stride, T::ZERO);
        for sample in self.states[..kept].chunks_mut((phases * stride).max(1)) {
            let free = stride.min(sample.len());
            sample[..free].fill(T::ZERO);
        }
        self.outcomes.clear();
        self.outcomes.resize(rows, Outcome::default());
    }

    /// Where the layers lie in a row.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.layout.stride() * if self.complex { 2 } else { 1 }
    }

    /// Whether states are complex.
    pub fn is_complex(&self) -> bool {
        self.complex
    }

    /// Phases per sample.
    pub fn phases(&self) -> usize {
        self.phases
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.outcomes.len() / self.phases
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.outcomes.len()
    }

    /// The real parts of row `r`.
    pub fn row(&self, r: usize) -> &[T] {
        &self.states[r * self.stride()..][..self.layout.stride()]
    }

    /// The real parts of row `r`, to change.
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        let (stride, len) = (self.stride(), self.layout.stride());
        &mut self.states[r * stride..][..len]
    }

    /// The imaginary parts of row `r`; empty where the plan is real.
    pub fn imaginary_row(&self, r: usize) -> &[T] {
        &self.states[r * self.stride()..(r + 1) * self.stride()][self.layout.stride()..]
    }

    /// Layer `l` of row `r`.
    pub fn layer(&self, r: usize, l: usize) -> &[T] {
        &self.row(r)[self.layout.layer(l)]
    }

    /// The outputs of row `r`.
    pub fn outputs(&self, r: usize) -> &[T] {
        &self.row(r)[self.layout.outputs()]
    }

    /// The rows of the last phase alone, as a trial of one phase.
    #[must_use]
    pub fn last_phase(&self) -> Self {
        let stride = self.stride();
        let mut last = Self::new(self.layout.clone());
        last.reset(self.samples(), 1, self.complex);
        for (i, row) in last.states.chunks_exact_mut(stride.max(1)).enumerate() {
            row.copy_from_slice(&self.states[((i + 1) * self.phases - 1) * stride..][..stride]);
        }
        for (i, outcome) in last.outcomes.iter_mut().enumerate() {
            *outcome = self.outcomes[(i + 1) * self.phases - 1];
        }
        last
    }

    /// Whether every phase of sample `i` is usable.
    pub fn usable(&self, i: usize) -> bool {
        self.outcomes[i * self.phases..(i + 1) * self.phases].iter().all(|outcome| outcome.status.usable())
    }
}
