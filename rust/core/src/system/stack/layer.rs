//! Layers: transforms that signals pass through.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::polled;
use pnncore_kernels::{Level, Real};
use serde::{Deserialize, Serialize};

use crate::params::ParamSpec;
use crate::precision::Precision;
use crate::scratch::Scratch;
use crate::signal::Signal;
use crate::{Error, Result};

/// What a layer is given besides signals.
#[derive(Debug, Clone, Copy)]
pub struct LayerContext<'a, T> {
    /// The instruction set.
    pub level: Level,
    /// The layer's parameters.
    pub params: &'a [&'a [T]],
    /// What [`Layer::prepare`] left.
    pub prepared: &'a [T],
    /// The number of the layer.
    pub layer: usize,
    /// The number of the first row.
    pub first: usize,
    /// The random numbers of this pass; a layer's own groups begin at its number.
    pub random: Philox,
    /// Memory of the thread that passes the block.
    pub scratch: &'a Scratch<T>,
}

/// A pass of some rows through a layer.
#[derive(Debug, Clone, Copy)]
pub struct ForwardRecord<'a, T> {
    /// How many rows.
    pub rows: usize,
    /// Inputs, row by row.
    pub x: &'a [T],
    /// Outputs, row by row.
    pub y: &'a [T],
    /// What [`Layer::forward`] left for derivatives.
    pub tape: &'a [T],
}

/// What a layer is to the others: methods group layers by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// y = x W + b of real signals: the first parameter is W (inputs, outputs), the second one b,
    /// where there is a bias.
    LinearMap {
        /// Whether there is a bias.
        bias: bool,
    },
    /// A row, scaled: local losses are taken before it.
    Normalisation,
    /// A function of each signal by itself, whose slope another one may stand for.
    Pointwise,
    /// Intensities of a field, or sums of them.
    Detection,
    /// Something else.
    Other,
}

/// A function in the place of the slope of a pointwise layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SurrogateDerivative {
    /// The slope of the twin itself.
    Twin,
    /// One.
    One,
    /// One where |z| < 1, otherwise zero.
    Box,
    /// 1 - |z| / 2 where that is positive.
    Triangle,
}

impl SurrogateDerivative {
    fn at<T: Real>(self, z: T) -> T {
        match self {
            Self::Box if z.abs() >= T::ONE => T::ZERO,
            Self::Triangle => {
                let left = T::ONE - T::from_f64(0.5) * z.abs();
                if left < T::ZERO { T::ZERO } else { left }
            }
            Self::Box | Self::One | Self::Twin => T::ONE,
        }
    }
}

/// By what a layer answers an error of its outputs.
#[derive(Clone, Copy)]
pub enum Answer<'a, T> {
    /// By its derivatives.
    Derivatives,
    /// By the hardware itself, through which errors of the outputs are sent back; parameters learn
    /// by derivatives.
    Physics {
        /// What they are sent through.
        hardware: &'a dyn Layer<T>,
        /// What [`Layer::prepare_reverse`] left.
        prepared: &'a [T],
        /// How many samples there are.
        samples: usize,
    },
    /// By a matrix (outputs, inputs) in the place of the transposed weights.
    Feedback(&'a [T]),
    /// By a function in the place of the slope.
    Surrogate(SurrogateDerivative),
}

/// Which intensities monitors of light read, for it to measure its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapProtocol {
    /// Those of signals minus and plus i times the conjugate errors, half the difference of which
    /// is the gradient: one pass more, and what light loses matters less.
    Difference,
    /// Those of signals, of errors on their way back, and of both together.
    ThreeIntensity,
}

/// How light measures its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LightProtocol {
    /// Errors are sent back through the hardware; where intensities are read, by this protocol.
    Backward(TapProtocol),
    /// Errors are sent forward through media that light passes both ways alike, layer by layer,
    /// with masks out of the way: what these do to errors is multiplied afterwards, by what they
    /// are set to.
    Forward,
}

impl TapProtocol {
    /// Passes through the layers forward, the one of signals not counted.
    pub(crate) fn passes(self) -> usize {
        match self {
            Self::Difference => 2,
            Self::ThreeIntensity => 1,
        }
    }

    /// How often every monitor is read.
    pub(crate) fn reads(self) -> usize {
        match self {
            Self::Difference => 2,
            Self::ThreeIntensity => 3,
        }
    }
}

/// Light on its way through hardware, with monitors at its phase shifters.
#[derive(Debug)]
pub struct LightPass<'a, T> {
    /// Whether it comes from the side of the outputs, through what [`Layer::prepare_reverse`] left.
    pub backward: bool,
    /// Whether it then meets the medium alone, and the mask is multiplied afterwards, as it is set:
    /// see [`LightProtocol::Forward`].
    pub through_medium: bool,
    /// The fields that are sent in, row by row.
    pub sent: &'a [T],
    /// Those that come out.
    pub received: &'a mut [T],
    /// The fields that signals had at the inputs, where errors come backward and fields are read.
    pub signals: &'a [T],
    /// What readings are multiplied by, row by row, as they are summed; none: nothing is read.
    pub weights: &'a [T],
    /// The sums, one to a monitor, that intensities are added to.
    pub sums: &'a mut [T],
    /// Which of the passes of a step it is: each reads with noise of its own.
    pub number: u32,
}

/// A transform y = f(x, theta) of rows of signals, and its derivatives. Rows do not see each other.
pub trait Layer<T: Real>: Send + Sync {
    /// The name of the kind of layer.
    fn name(&self) -> &'static str;

    /// The signal that it takes.
    fn takes(&self) -> Signal;

    /// The signal that it gives.
    fn gives(&self) -> Signal;

    /// The numbers that a row of inputs is.
    fn inputs(&self) -> usize {
        self.takes().numbers()
    }

    /// The numbers that a row of outputs is.
    fn outputs(&self) -> usize {
        self.gives().numbers()
    }

    /// What the layer is to the others.
    fn role(&self) -> Role {
        Role::Other
    }

    /// Names and shapes of the parameters.
    fn specs(&self) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Writes initial parameters, drawn from groups `group..` of `random`.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let _ = (random, group, params);
    }

    /// Numbers per row that the forward pass leaves for derivatives, row by row. Where all are
    /// zero, and inputs and outputs are, too, derivatives must be finite.
    fn tape(&self) -> usize {
        0
    }

    /// Multiply-adds that a digital computer takes per sample: 0 where physics does the work.
    fn operations(&self) -> u64 {
        0
    }

    /// Multiply-adds, about, that simulating a pass of one row takes: what threads are shared by.
    fn work(&self) -> usize {
        let parameters: usize = self.specs().iter().map(ParamSpec::len).sum();
        parameters.max(self.inputs()).max(self.outputs())
    }

    /// Names and shapes of the arrays in which the layer, as hardware, keeps what time makes of it;
    /// they are zero at first.
    fn memory(&self) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Changes those arrays as they do from one step of training to the next, by random numbers of
    /// groups `group..` of `random`.
    fn advance(&self, random: Philox, group: u32, memory: &mut [&mut [T]]) {
        let _ = (random, group, memory);
    }

    /// Writes what does not change from row to row: for the forward pass, and for derivatives where
    /// `derivatives`. `memory` are the arrays of [`Layer::memory`], or none: as they are at first.
    fn prepare(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        let _ = (level, params, memory, derivatives);
        prepared.clear();
    }

    /// Writes the outputs of `rows` rows, and the tape: there is none (it is empty) where no
    /// derivatives follow.
    ///
    /// # Errors
    /// What the physics may fail with: [`Error::Hardware`] for layers outside the core.
    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()>;

    /// Writes dy times the Jacobian by the inputs to `dx` (empty: not wanted), and adds dy times
    /// the Jacobians by the parameters, summed over rows, to `gradient`.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()>;

    /// Writes the change of the outputs that goes with a change `dx` of inputs and `along` of
    /// parameters: both Jacobians times these.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()>;

    /// Writes the layer's answer to the errors `dy` of its outputs to `dx` (empty: not wanted), and
    /// adds to `gradient` as [`Layer::vjp`] does.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    fn backward(
        &self,
        answer: Answer<'_, T>,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        match answer {
            _ if dx.is_empty() => return self.vjp(context, record, dy, dx, gradient),
            Answer::Derivatives => return self.vjp(context, record, dy, dx, gradient),
            Answer::Surrogate(slope) => {
                for ((dx, &dy), &z) in dx.iter_mut().zip(dy).zip(record.x) {
                    *dx = dy * slope.at(z);
                }
                return Ok(());
            }
            Answer::Physics { hardware, prepared, samples } => {
                self.vjp(context, record, dy, &mut [], gradient)?;
                // Errors are those of a mean over samples, but every sample sends its own: what
                // converters and noise make of it does not depend on how many others there are.
                let count = T::from_f64(samples as f64);
                let mut own = context.scratch.copy(dy);
                own.iter_mut().for_each(|e| *e *= count);
                hardware.reverse(LayerContext { prepared, ..context }, &own, dx)?;
                dx.iter_mut().for_each(|dx| *dx /= count);
            }
            Answer::Feedback(matrix) => {
                self.vjp(context, record, dy, &mut [], gradient)?;
                let (n, m) = (self.outputs(), self.inputs());
                dx.fill(T::ZERO);
                let dy = Strided { data: dy, row: n, column: 1 };
                multiply(
                    context.level,
                    dy,
                    Dense { data: matrix, stride: m },
                    (record.rows, n, m),
                    dx,
                    m,
                );
            }
        }
        self.replace_input_errors(context.params, record.x, dx, gradient);
        Ok(())
    }

    /// Lets parameters that cut inputs `x` off learn from errors of inputs that did not come from
    /// derivatives, and takes these errors away.
    fn replace_input_errors(
        &self,
        params: &[&[T]],
        x: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) {
        let _ = (params, x, dx, gradient);
    }

    /// Whether the gradient of the first parameter is a product of inputs and errors of outputs,
    /// which then stays factored: [`Layer::vjp`] leaves it out.
    fn is_factored(&self) -> bool {
        false
    }

    /// In what precision signals and errors meet weights, and each other in the factored gradient.
    fn precision(&self) -> Precision {
        Precision::Full
    }

    /// Makes of inputs those of the factored gradient.
    fn factor_inputs(&self, params: &[&[T]], x: &mut [T]) {
        let _ = (params, x);
    }

    /// Whether all that derivatives need prepared is a transpose, and that only where errors go on
    /// to inputs: [`Layer::prepare_transpose`] adds it.
    fn prepares_transpose_alone(&self) -> bool {
        false
    }

    /// Makes what [`Layer::prepare`] left, with or without derivatives, what it leaves with them.
    fn prepare_transpose(&self, level: Level, params: &[&[T]], prepared: &mut Vec<T>) {
        let _ = (level, params, prepared);
    }

    /// Whether [`Layer::reverse`] works: whether signals can be sent back through the physics.
    fn has_reverse(&self) -> bool {
        false
    }

    /// Writes what [`Layer::reverse`] needs that does not change from row to row.
    fn prepare_reverse(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
    ) {
        let _ = (level, params, memory);
        prepared.clear();
    }

    /// Writes to `dx` what arrives at the inputs when `dy` is put on the outputs: the physics' own
    /// answer to an error. `context` has what [`Layer::prepare_reverse`] left.
    ///
    /// # Errors
    /// [`Error::Capability`] where it cannot be run backwards.
    fn reverse(&self, context: LayerContext<'_, T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        let _ = (context, dy, dx);
        Err(Error::Capability(format!("{} cannot be run backwards", self.name())))
    }

    /// How many numbers are read of a sample where derivatives are products of elements of a
    /// scattering matrix, which the hardware measures; `None`: they are not.
    fn scattering_read(&self) -> Option<usize> {
        None
    }

    /// Writes these numbers, row by row, in the place of a tape, as they are measured with inputs
    /// `x`. `context` has what [`Layer::prepare_reverse`] left.
    ///
    /// # Errors
    /// [`Error::Capability`] where there are no [`Layer::scattering_read`].
    fn read_scattering(
        &self,
        context: LayerContext<'_, T>,
        x: &[T],
        elements: &mut [T],
    ) -> Result<()> {
        let _ = (context, x, elements);
        Err(Error::Capability(format!("{} has no scattering matrix", self.name())))
    }

    /// How many monitors read light on its way, where it can be sent through the layer both ways;
    /// `None`: it cannot. They read intensities just behind phase shifters, or
    /// [`Layer::points_read`].
    fn monitors(&self) -> Option<usize> {
        None
    }

    /// At how many points monitors read fields instead, by phase-shifting interferometry: those of
    /// signals, and those of errors on their way back, whose products are what sums are made of.
    /// That takes reciprocity, but light may be lost (Zhou et al., Photon. Res. 8, 940, 2020).
    fn points_read(&self) -> Option<usize> {
        None
    }

    /// Whether the transfer of its medium, without what parameters set, equals its transpose, so
    /// that errors can be sent forward through it: see [`LightProtocol::Forward`].
    fn has_symmetric_medium(&self) -> bool {
        false
    }

    /// Whether fields that come out are linear in those that go in.
    fn is_linear_in_fields(&self) -> bool {
        false
    }

    /// See [`Layer::points_read`].
    fn reads_fields(&self) -> bool {
        self.points_read().is_some()
    }

    /// Sends light through the hardware.
    ///
    /// # Errors
    /// [`Error::Capability`] where there are no [`Layer::monitors`].
    fn pass_light(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        pass: LightPass<'_, T>,
    ) -> Result<()> {
        let _ = (context, rows, pass);
        Err(Error::Capability(format!("{} has no monitors of light", self.name())))
    }

    /// Adds what a loss changes by with parameters to `gradient`, given by how much it changes with
    /// the phase at each of the [`Layer::monitors`], or with what else they tell.
    fn learn_phases(&self, params: &[&[T]], by_phase: &[T], gradient: &mut [Vec<T>]) {
        let _ = (params, by_phase, gradient);
    }

    /// The same layer with constants that are off by a relative `mismatch`, as drawn from groups
    /// `group..` of `random`.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>>;

    /// Whether [`Layer::vjp`] is known: an instrument without a twin is asked for signals alone.
    fn has_derivatives(&self) -> bool {
        true
    }

    /// Whether parameters are phases: each output is A + B cos(phase) + C sin(phase) of every one,
    /// or, where outputs are amplitudes, A + B exp(i phase), so that intensities behind are.
    fn is_sinusoidal(&self) -> bool {
        false
    }
}

/// One parameter, which is a vector.
pub(super) fn vector(name: &str, len: usize) -> Vec<ParamSpec> {
    vec![ParamSpec { name: name.into(), shape: vec![len] }]
}

/// Numbers 1 + mismatch * normal.
pub(super) fn factors<T: Real>(n: usize, mismatch: f64, random: Philox, group: u32) -> Vec<T> {
    polled(n, 64)
        .map(|i| i as u64)
        .map(|i| T::from_f64(1.0 + mismatch * random.normal(i, group)))
        .collect()
}

/// Moves arrays of what hardware is off by along random walks, whose steps have this standard
/// deviation and are drawn from a group for each.
pub(super) fn walk<T: Real>(step: f64, random: Philox, group: u32, memory: &mut [&mut [T]]) {
    for (walks, group) in memory.iter_mut().zip(group..) {
        for (k, walk) in (0..).zip(walks.iter_mut()) {
            *walk += T::from_f64(step * random.normal(k, group));
        }
    }
}

/// The tape, or `len` numbers of `memory` where there is none.
pub(super) fn tape_or<'a, T: Real>(
    memory: &'a mut Vec<T>,
    len: usize,
    tape: &'a mut [T],
) -> &'a mut [T] {
    if tape.is_empty() {
        memory.resize(len, T::ZERO);
        return memory;
    }
    tape
}
