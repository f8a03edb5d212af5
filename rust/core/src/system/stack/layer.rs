//! Layers: transforms that signals pass through.

use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::polled;
use pnncore_kernels::{Level, Real};

use super::linear::Linear;
use crate::params::ParamSpec;
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

/// A transform y = f(x, theta) of rows of signals, and its derivatives. Rows do not see each other.
pub trait Layer<T: Real>: Send + Sync {
    /// The name of the kind of layer.
    fn name(&self) -> &'static str;

    /// The number of inputs.
    fn inputs(&self) -> usize;

    /// The number of outputs.
    fn outputs(&self) -> usize;

    /// Names and shapes of the parameters.
    fn specs(&self) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Writes initial parameters, drawn from groups `group..` of `random`.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let _ = (random, group, params);
    }

    /// Numbers per row that the forward pass leaves for derivatives, row by row. Where all are zero, and inputs and outputs are, too,
    /// derivatives must be finite.
    fn tape(&self) -> usize {
        0
    }

    /// Multiply-adds that a digital computer takes per sample: 0 where physics does the work.
    fn operations(&self) -> u64 {
        0
    }

    /// Writes what does not change from row to row: for the forward pass, and for derivatives where `derivatives`.
    fn prepare(&self, level: Level, params: &[&[T]], derivatives: bool, prepared: &mut Vec<T>) {
        let _ = (level, params, derivatives);
        prepared.clear();
    }

    /// Writes the outputs of `rows` rows, and the tape: there is none (it is empty) where no derivatives follow.
    ///
    /// # Errors
    /// What the physics may fail with: [`Error::Hardware`] for layers outside the core.
    fn forward(&self, context: LayerContext<'_, T>, rows: usize, x: &[T], y: &mut [T], tape: &mut [T]) -> Result<()>;

    /// Writes dy times the Jacobian by the inputs to `dx` (empty: not wanted), and adds dy times the Jacobians by the
    /// parameters, summed over rows, to `gradient`.
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

    /// Writes the change of the outputs that goes with a change `dx` of inputs and `along` of parameters: both Jacobians times these.
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

    /// Whether [`Layer::reverse`] works: whether signals can be sent back through the physics.
    fn has_reverse(&self) -> bool {
        false
    }

    /// Writes what [`Layer::reverse`] needs that does not change from row to row.
    fn prepare_reverse(&self, level: Level, params: &[&[T]], prepared: &mut Vec<T>) {
        let _ = (level, params);
        prepared.clear();
    }

    /// Writes to `dx` what arrives at the inputs when `dy` is put on the outputs: the physics' own answer to an error. `context` has what
    /// [`Layer::prepare_reverse`] left.
    ///
    /// # Errors
    /// [`Error::Capability`] where it cannot be run backwards.
    fn reverse(&self, context: LayerContext<'_, T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        let _ = (context, dy, dx);
        Err(Error::Capability(format!("{} cannot be run backwards", self.name())))
    }

    /// The same layer with constants that are off by a relative `mismatch`, as drawn from groups `group..` of `random`.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>>;

    /// The layer as a plain linear map, whose gradient is an outer product.
    fn as_linear(&self) -> Option<&Linear<T>> {
        None
    }

    /// Whether [`Layer::vjp`] is known: an instrument without a twin is asked for signals alone.
    fn has_derivatives(&self) -> bool {
        true
    }

    /// Whether the layer only scales a row: local losses are taken before it.
    fn is_normalisation(&self) -> bool {
        false
    }

    /// Whether all parameters are phases, of which each output, an intensity, is a sinusoidal function.
    fn is_interference(&self) -> bool {
        false
    }

    /// Whether the layer acts on each signal by itself: augmented direct feedback alignment replaces its slope.
    fn is_pointwise(&self) -> bool {
        false
    }
}

/// Numbers 1 + mismatch * normal.
pub(super) fn factors<T: Real>(n: usize, mismatch: f64, random: Philox, group: u32) -> Vec<T> {
    polled(n, 64).map(|i| i as u64).map(|i| T::from_f64(1.0 + mismatch * random.normal(i, group))).collect()
}

/// The tape, or memory for `len` numbers where there is none.
pub(super) fn tape_or<'a, T: Real>(memory: &'a mut Vec<T>, len: usize, tape: &'a mut [T]) -> &'a mut [T] {
    if tape.is_empty() {
        memory.resize(len, T::ZERO);
        return memory;
    }
    tape
}
