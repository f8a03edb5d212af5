//! Stacks: signals pass through layers, one after the other.
//!
//! Every layer is there twice: the twin, whose derivatives are known, and the hardware, which may differ from it by a
//! mismatch and adds noise to what it measures. In simulation both are models; methods respect which is which.

mod crossbar;
mod harmonic;
mod layer;
mod linear;
mod multiplexed;
mod normalise;
mod ode;
mod outline;
mod pendula;
mod plate;
mod pointwise;
mod propagation;
mod spec;
mod speckle;
mod transistor;

pub use crossbar::{Hardware, Remap};
pub use harmonic::Harmonic;
pub use layer::{ForwardRecord, Layer, LayerContext};
pub use linear::Linear;
pub use outline::Outline;
pub use pendula::Pendula;
pub use pointwise::{Function, Pointwise};
pub use propagation::{BackwardRule, Block, ErrorSignal, Propagation, SurrogateDerivative, groups};
pub use spec::{Entry, Kind, Sides, Spec};
pub use speckle::Speckle;

use std::ops::Range;

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};

use super::{Abilities, Experiment, System, Workspace};
use crate::device::{CellArray, Device};
use crate::draw::DrawIndex;
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::states::{Layout, Outcome, States, Status};
use crate::{Error, Result};

/// Groups of random numbers that a layer may use.
const GROUPS: u32 = 8;

/// One layer with its hardware.
pub struct Stage<T> {
    /// The model with known derivatives.
    pub twin: Box<dyn Layer<T>>,
    /// What is measured on; `None`: the same.
    pub hardware: Option<Box<dyn Layer<T>>>,
    /// The standard deviation of what a measurement of an output adds.
    pub noise: f64,
    /// Its parameters, among those of the stack.
    pub params: Range<usize>,
    /// What its parameters are stored in.
    pub device: Device,
    /// The cells of the first one, where it is stored in an array of these.
    pub tile: Option<CellArray<T>>,
    /// Within how many of their standard deviations the values of the first one are kept.
    pub clip: Option<f64>,
}

impl<T> Stage<T> {
    /// What is measured on.
    pub fn hardware(&self) -> &dyn Layer<T>
    where
        T: Real,
    {
        self.hardware.as_deref().unwrap_or(&*self.twin)
    }
}

/// A chain of layers.
pub struct Stack<T> {
    stages: Vec<Stage<T>>,
    specs: Vec<ParamSpec>,
    inputs: usize,
    outputs: usize,
    seed: u64,
    foreign: bool,
}

impl<T: Real> Stack<T> {
    /// A stack of stages; `seed` is that of noise. `foreign` layers are called with all rows at once, on one thread. The names of
    /// parameters end with the numbers of their layers where they are `numbered`.
    ///
    /// # Errors
    /// [`Error::Config`] without stages, [`Error::Shape`] where the outputs of a layer are not the inputs of the next.
    pub fn new(mut stages: Vec<Stage<T>>, seed: u64, foreign: bool, numbered: bool) -> Result<Self> {
        let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
            return Err(Error::Config("a stack needs at least one layer".into()));
        };
        let (inputs, outputs) = (first.twin.inputs(), last.twin.outputs());
        for (l, pair) in stages.windows(2).enumerate() {
            let (from, to) = (&pair[0].twin, &pair[1].twin);
            if from.outputs() != to.inputs() {
                return Err(Error::Shape(format!(
                    "layer {} ({}) has {} outputs, but layer {} ({}) takes {} inputs",
                    l + 1,
                    from.name(),
                    from.outputs(),
                    l + 2,
                    to.name(),
                    to.inputs()
                )));
            }
        }
        let mut specs = Vec::new();
        for (l, stage) in stages.iter_mut().enumerate() {
            let first = specs.len();
            let named = |spec: ParamSpec| match numbered {
                true => ParamSpec { name: format!("{}{}", spec.name, l + 1), ..spec },
                false => spec,
            };
            specs.extend(stage.twin.specs().into_iter().map(named));
            stage.params = first..specs.len();
        }
        Ok(Self { stages, specs, inputs, outputs, seed, foreign })
    }

    /// The layers.
    pub fn stages(&self) -> &[Stage<T>] {
        &self.stages
    }

    /// Whether errors can come back from the outputs to all parameters: every layer that they pass has derivatives.
    pub fn is_differentiable(&self) -> bool {
        self.first_without_derivatives().is_none()
    }

    /// The first layer that errors cannot pass, and should.
    pub fn first_without_derivatives(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.params.end > 0 && !stage.twin.has_derivatives())
    }

    /// Rows of this many that pass together; blocks of rows may pass at the same time.
    pub fn block_rows(&self, rows: usize) -> usize {
        /// A few tiles of a product; a batch of 64 is enough for four threads.
        const ROWS: usize = 16;
        /// From here on there are blocks for all threads where they are twice as large, and weights are read half as often.
        const MANY: usize = 256;
        match rows {
            _ if self.foreign => usize::MAX,
            MANY.. => 2 * ROWS,
            _ => ROWS,
        }
    }

    /// The noise of a draw.
    fn noise(&self, draw: DrawIndex) -> Philox {
        draw.of(Philox::new(self.seed, Purpose::Noise))
    }

    /// The twins with other constants, off by a relative `mismatch`: what a batch of vaccinated training meets.
    pub fn vaccines(&self, mismatch: f64, random: Philox) -> Vec<Box<dyn Layer<T>>> {
        let stages = self.stages.iter().enumerate();
        stages.map(|(l, stage)| stage.twin.mismatched(mismatch, random, GROUPS * l as u32)).collect()
    }

    /// Whether every twin is its hardware: what a pass through the hardware leaves then serves for derivatives.
    pub fn twins_are_exact(&self) -> bool {
        self.stages.iter().all(|stage| stage.hardware.is_none())
    }

    /// Multiply-adds of the digital layers per sample.
    pub fn operations(&self) -> u64 {
        self.stages.iter().map(|stage| stage.twin.operations()).sum()
    }

    /// Passes all samples through the hardware and leaves outputs in `states`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn infer(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        propagation: &mut Propagation<T>,
    ) -> Result<()> {
        propagation.begin(self, experiment.batch);
        self.infer_again(experiment, states, propagation)
    }

    /// The same for the samples of the last time, with other parameters or another draw.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn infer_again(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        propagation: &mut Propagation<T>,
    ) -> Result<()> {
        let Experiment { runtime, params, draw, .. } = *experiment;
        propagation.forward(runtime, self, &self.hardware(), params, false, draw)?;
        propagation.report(states);
        Ok(())
    }

    /// What is measured on, layer by layer.
    pub fn hardware(&self) -> Vec<&dyn Layer<T>> {
        self.stages.iter().map(Stage::hardware).collect()
    }

    /// The model, layer by layer.
    pub fn twin(&self) -> Vec<&dyn Layer<T>> {
        self.stages.iter().map(|stage| &*stage.twin).collect()
    }
}

impl<T: Real> System<T> for Stack<T> {
    fn name(&self) -> &str {
        "Stack"
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn layout(&self) -> Layout {
        Layout::new(&[self.outputs])
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn device(&self, parameter: usize) -> &Device {
        let stage = self.stages.iter().find(|stage| stage.params.contains(&parameter));
        stage.map_or(&Device::IDEAL, |stage| &stage.device)
    }

    fn tile(&self, parameter: usize) -> Option<&CellArray<T>> {
        self.stages.iter().find(|stage| stage.params.start == parameter && !stage.params.is_empty())?.tile.as_ref()
    }

    fn clip(&self, parameter: usize) -> Option<f64> {
        self.stages.iter().find(|stage| stage.params.start == parameter && !stage.params.is_empty())?.clip
    }

    fn workspace(&self) -> Workspace {
        Box::new(Propagation::<T>::default())
    }

    fn abilities(&self) -> Abilities {
        let (readout, before) = match self.stages.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        let linear = readout.is_some_and(|last| last.twin.as_linear().is_some());
        let phases = readout.is_some_and(|last| last.twin.is_interference());
        Abilities::LAYERS
            .and_if(self.is_differentiable(), Abilities::TWINS)
            .and_if(linear, Abilities::LINEAR_READOUT)
            .and_if(phases && before.iter().all(|stage| stage.params.is_empty()), Abilities::PHASES)
    }

    fn explain_lack(&self, needs: Abilities) -> String {
        match self.first_without_derivatives() {
            Some(l) if needs.has(Abilities::TWINS) => {
                format!("layer {} has no twin: set twin= of the instrument", l + 1)
            }
            _ => "Stack does not have that".into(),
        }
    }

    fn calls_out(&self) -> bool {
        self.foreign
    }

    /// The layers know how large initial weights are: there is no gain.
    fn initialise(&self, _runtime: &Runtime, seed: u64, _gain: f64, params: &mut [&mut [T]]) {
        let random = Philox::new(seed, Purpose::Initialise);
        for (l, stage) in self.stages.iter().enumerate() {
            let own = &mut params[stage.params.clone()];
            stage.twin.initialise(random, GROUPS * l as u32, own);
            if let (Some(tile), [weights, ..]) = (&stage.tile, own) {
                tile.keep_within(weights);
            }
        }
    }

    fn as_stack(&self) -> Option<&Stack<T>> {
        Some(self)
    }
}

/// The outcome of a row with these outputs.
fn outcome<T: Real>(outputs: &[T]) -> Outcome {
    let finite = outputs.iter().all(|y| y.is_finite());
    Outcome { status: if finite { Status::Completed } else { Status::Diverged }, ..Outcome::default() }
}
