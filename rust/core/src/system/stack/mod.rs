//! Stacks: signals pass through layers, one after the other.
//!
//! Every layer is there twice: the twin, whose derivatives are known, and the hardware, which may
//! differ from it by a mismatch and adds noise to what it measures. In simulation both are models;
//! methods respect which is which.

mod complex;
mod counter;
mod crossbar;
mod detect;
mod diffraction;
mod encode;
mod experiment;
mod fibre;
mod harmonic;
mod layer;
mod layer_spec;
mod light;
mod linear;
mod mesh;
mod microring;
mod modes;
mod multiplexed;
mod normalise;
mod ode;
mod pendula;
mod plate;
mod pointwise;
mod propagation;
mod regions;
mod registry;
mod spec;
mod speckle;
mod split_step;
mod transistor;
mod waveguide;

pub use crossbar::{CrossbarSpec, Hardware, ReadPrecision, Remap};
pub use detect::{DetectSpec, Quantity};
pub use diffraction::{DiffractionSpec, MaskKind};
pub use encode::{Carrier, EncodeSpec};
pub use fibre::{FibreSpec, PulseShape};
pub use harmonic::SecondHarmonicSpec;
pub use layer::{
    Answer, ForwardRecord, Layer, LayerContext, LightPass, LightProtocol, Role,
    SurrogateDerivative, TapProtocol,
};
pub use layer_spec::{LayerOutline, LayerSpec, Parts, Site};
pub use linear::{Linear, LinearSpec};
pub use mesh::{Circuit, MZIMeshSpec, MeshLayout, MeshTarget, Square};
pub use microring::MicroringSpec;
pub use modes::CoupledModesSpec;
pub use normalise::NormaliseSpec;
pub use pendula::PendulaSpec;
pub use plate::PlateSpec;
pub use pointwise::{Function, Pointwise, PointwiseSpec};
pub use propagation::{BackwardRule, Block, ErrorSignal, Propagation};
pub use regions::DetectorRegionsSpec;
pub use registry::{ForeignSpec, LayerChoice};
pub use spec::{Entry, Outline, Spec};
pub use speckle::SpeckleSpec;
pub use transistor::TransistorSpec;
pub use waveguide::WaveguideSpec;

use std::ops::Range;

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use smallvec::SmallVec;

use super::{Abilities, Experiment, System, Workspace};
use crate::device::Store;
use crate::draw::DrawIndex;
use crate::params::{ParamSpec, Params};
use crate::runtime::Runtime;
use crate::signal::Signal;
use crate::states::{Layout, Outcome, States, Status};
use crate::{Error, Result};

/// Groups of random numbers that a layer may use.
const GROUPS: u32 = 8;

/// Groups from here on are those of monitors of light: four passes to a layer.
const GROUPS_OF_TAPS: u32 = 1 << 28;

/// Groups from here on are those of photons that are counted, one to a layer.
const GROUPS_OF_SHOTS: u32 = 1 << 29;

/// One layer with its hardware.
pub struct Stage<T> {
    /// What it is made of.
    parts: Parts<T>,
    /// The standard deviation of what a measurement of an output adds.
    noise: f64,
    /// Its parameters, among those of the stack.
    pub params: Range<usize>,
    /// What its hardware keeps, among what that of the stack does.
    memory: Range<usize>,
}

/// A stack at its parameters and the memory of its hardware: what signals pass through.
#[derive(Clone, Copy)]
pub struct StackAt<'a, T: Real> {
    /// Threads, instruction set and seed.
    pub runtime: &'a Runtime,
    /// The layers.
    pub stack: &'a Stack<T>,
    /// The values of the parameters.
    pub params: &'a Params<'a, T>,
    /// The arrays of [`System::memory`]; none: as the hardware is at first.
    pub memory: &'a [&'a [T]],
}

impl<'a, T: Real> StackAt<'a, T> {
    /// The parameters of one of the layers.
    fn params_of(&self, stage: &Stage<T>) -> SmallVec<[&'a [T]; 4]> {
        propagation::of_stage(self.params, stage.params.clone())
    }

    /// What one of the layers keeps: only hardware does.
    fn memory_of(&self, stage: &Stage<T>, layers: Layers<'_, T>) -> &'a [&'a [T]] {
        let keeps = matches!(layers, Layers::Hardware);
        self.memory.get(stage.memory.clone()).filter(|_| keeps).unwrap_or_default()
    }
}

impl<T: Real> Stage<T> {
    /// A layer, and the standard deviation of what a measurement of its outputs adds.
    pub fn new(parts: Parts<T>, noise: f64) -> Self {
        Self { parts, noise, params: 0..0, memory: 0..0 }
    }

    /// The model with known derivatives.
    pub fn twin(&self) -> &dyn Layer<T> {
        &*self.parts.twin
    }

    /// The standard deviation of what a measurement of its outputs adds.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The same for noise that measurements have everywhere: nothing measures a field.
    pub(crate) fn measured(&self, noise: f64) -> f64 {
        if self.twin().gives().complex { 0.0 } else { noise }
    }

    /// Whether it takes a field and gives one.
    pub(crate) fn is_light(&self) -> bool {
        self.twin().takes().complex && self.twin().gives().complex
    }

    /// Whether it is a linear map.
    pub fn is_linear_map(&self) -> bool {
        matches!(self.twin().role(), Role::LinearMap { .. })
    }

    /// What is measured on.
    pub fn hardware(&self) -> &dyn Layer<T> {
        self.parts.hardware.as_deref().unwrap_or(self.twin())
    }
}

/// The layers of a stack that signals or errors pass.
#[derive(Clone, Copy)]
pub enum Layers<'a, T: Real> {
    /// The model, whose derivatives are known.
    Twin,
    /// What is measured on.
    Hardware,
    /// Others in their place.
    Own(&'a [Box<dyn Layer<T>>]),
}

/// A chain of layers.
pub struct Stack<T> {
    stages: Vec<Stage<T>>,
    groups: Vec<Range<usize>>,
    light: Vec<Range<usize>>,
    specs: Vec<ParamSpec>,
    memory: Vec<ParamSpec>,
    takes: Signal,
    outputs: usize,
    seed: u64,
    foreign: bool,
    work: usize,
}

impl<T: Real> Stack<T> {
    /// A stack of stages; `seed` is that of noise. `foreign` layers are called with all rows at
    /// once, on one thread. The names of parameters end with the numbers of their layers where they
    /// are `numbered`.
    ///
    /// # Errors
    /// [`Error::Config`] without stages, [`Error::Shape`] where a layer does not take what the one
    /// before gives, and for noise where nothing is measured.
    pub fn new(
        mut stages: Vec<Stage<T>>,
        seed: u64,
        foreign: bool,
        numbered: bool,
    ) -> Result<Self> {
        let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
            return Err(Error::Config("a stack needs at least one layer".into()));
        };
        let (takes, outputs) = (first.twin().takes(), last.twin().outputs());
        check_signals(&stages)?;
        let (mut specs, mut memory) = (Vec::new(), Vec::new());
        for (l, stage) in stages.iter_mut().enumerate() {
            let first = (specs.len(), memory.len());
            specs.extend(
                stage.twin().specs().into_iter().map(|own| name_in_stack(own, l, numbered)),
            );
            memory.extend(
                stage.hardware().memory().into_iter().map(|own| name_in_stack(own, l, numbered)),
            );
            (stage.params, stage.memory) = (first.0..specs.len(), first.1..memory.len());
            if stage.parts.hardware.is_none() && !stage.memory.is_empty() {
                return Err(Error::Config(format!(
                    "layer {} keeps memory and is its own twin, which keeps none: give it hardware",
                    l + 1
                )));
            }
        }
        if !memory.is_empty() {
            memory.push(ParamSpec { name: CLOCK.into(), shape: vec![2] });
        }
        let (groups, light) = (groups(&stages), light::light_runs(&stages));
        let work = stages.iter().map(|stage| stage.twin().work()).fold(0, usize::saturating_add);
        Ok(Self { stages, groups, light, specs, memory, takes, outputs, seed, foreign, work })
    }

    /// The layers.
    pub fn stages(&self) -> &[Stage<T>] {
        &self.stages
    }

    /// Appends the inputs of a sample: of complex numbers, whose parts lie side by side in batches,
    /// all real parts, and then all imaginary ones.
    fn take_in(&self, sample: &[T], inputs: &mut Vec<T>) {
        if self.takes.complex {
            inputs.extend(sample.iter().step_by(2));
            inputs.extend(sample.iter().skip(1).step_by(2));
        } else {
            inputs.extend_from_slice(sample);
        }
    }

    /// The layers that a linear layer begins, with the normalisation before it: up to the next one.
    /// What comes before the first one is a group, too.
    pub fn groups(&self) -> &[Range<usize>] {
        &self.groups
    }

    /// The layers that light passes one after the other, each with monitors at its phase shifters.
    pub fn light(&self) -> &[Range<usize>] {
        &self.light
    }

    /// One of the layers.
    pub fn layer<'a>(&'a self, layers: Layers<'a, T>, l: usize) -> &'a dyn Layer<T> {
        match layers {
            Layers::Twin => self.stages[l].twin(),
            Layers::Hardware => self.stages[l].hardware(),
            Layers::Own(layers) => &*layers[l],
        }
    }

    /// Whether errors can come back from the outputs to all parameters: every layer that they pass
    /// has derivatives.
    pub fn is_differentiable(&self) -> bool {
        self.first_without_derivatives().is_none()
    }

    /// The first layer that errors cannot pass, and should.
    pub fn first_without_derivatives(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.params.end > 0 && !stage.twin().has_derivatives())
    }

    /// Rows of this many that pass together; blocks of rows may pass at the same time. It depends
    /// on the network and the batch alone: gradients are summed block by block.
    pub fn block_rows(&self, rows: usize) -> usize {
        /// A few tiles of a product; a batch of 64 is enough for four threads.
        const ROWS: usize = 16;
        /// From here on there are blocks for all threads where they are twice as large, and weights
        /// are read half as often.
        const MANY: usize = 256;
        /// Weights of a layer that no second-level cache holds beside signals: a product reads all
        /// of them from memory that cores share, and pays for it with many rows.
        const LARGE: usize = 1 << 19;
        let largest = self.specs.iter().map(ParamSpec::len).max().unwrap_or(0);
        match rows {
            _ if self.foreign => usize::MAX,
            _ if largest >= LARGE => (rows / 4).next_multiple_of(ROWS).clamp(ROWS, 8 * ROWS),
            MANY.. => 2 * ROWS,
            _ => ROWS,
        }
    }

    /// The noise of a draw.
    fn noise(&self, draw: DrawIndex) -> Philox {
        draw.of(Philox::new(self.seed, Purpose::Noise))
    }

    /// The twins with other constants, off by a relative `mismatch`: what a batch of vaccinated
    /// training meets.
    pub fn vaccines(&self, mismatch: f64, random: Philox) -> Vec<Box<dyn Layer<T>>> {
        let stages = self.stages.iter().enumerate();
        stages
            .map(|(l, stage)| stage.twin().mismatched(mismatch, random, GROUPS * l as u32))
            .collect()
    }

    /// Whether every twin is its hardware: what a pass through the hardware leaves then serves for
    /// derivatives.
    pub fn twins_are_exact(&self) -> bool {
        self.stages.iter().all(|stage| stage.parts.hardware.is_none())
    }

    /// Multiply-adds of the digital layers per sample.
    pub fn operations(&self) -> u64 {
        self.stages.iter().map(|stage| stage.twin().operations()).sum()
    }

    /// Multiply-adds, about, that simulating a pass of one row takes.
    fn work(&self) -> usize {
        self.work
    }

    /// Whether there are linear maps, and errors come back from the outputs to the last of them.
    fn reaches_linear_map(&self) -> bool {
        let last = self.stages.iter().rposition(Stage::is_linear_map);
        last.is_some_and(|l| self.stages[l + 1..].iter().all(|s| s.twin().has_derivatives()))
    }

    /// Passes the samples of the last time through the hardware once more, with other parameters or
    /// another draw, and leaves outputs in `states`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn infer_again(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        propagation: &mut Propagation<T>,
    ) -> Result<()> {
        propagation.forward(experiment.at(self), Layers::Hardware, false, experiment.draw)?;
        propagation.report(states);
        Ok(())
    }
}

impl<T: Real> System<T> for Stack<T> {
    fn name(&self) -> &str {
        "Stack"
    }

    fn takes(&self) -> Signal {
        self.takes
    }

    fn layout(&self) -> Layout {
        Layout::new(&[self.outputs])
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn memory(&self) -> &[ParamSpec] {
        &self.memory
    }

    fn advance(&self, memory: &mut [&mut [T]]) {
        let Some((clock, memory)) = memory.split_last_mut() else { return };
        let random = Philox::new(self.seed, Purpose::Drift).at(tick(clock));
        for (l, stage) in self.stages.iter().enumerate() {
            stage.hardware().advance(random, GROUPS * l as u32, &mut memory[stage.memory.clone()]);
        }
    }

    fn store(&self, parameter: usize) -> Store<'_, T> {
        match self.stages.iter().find(|stage| stage.params.contains(&parameter)) {
            Some(stage) => stage.parts.store(parameter - stage.params.start),
            None => Store::IDEAL,
        }
    }

    fn workspace(&self) -> Workspace {
        Box::new(Propagation::<T>::default())
    }

    fn infer(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let propagation = Propagation::of(workspace)?;
        propagation.begin_forward(experiment, self);
        self.infer_again(experiment, states, propagation)
    }

    fn abilities(&self) -> Abilities {
        Abilities::LAYERS
            .and_if(self.is_differentiable(), Abilities::TWINS)
            .and_if(self.stages.last().is_some_and(Stage::is_linear_map), Abilities::LINEAR_READOUT)
            .and_if(self.has_sinusoidal_outputs(), Abilities::PHASES)
            .and_if(self.has_symmetric_light(), Abilities::SYMMETRIC_LIGHT)
            .and_if(self.reaches_linear_map(), Abilities::LINEAR_MAPS)
    }

    fn explain_lack(&self, needs: Abilities) -> String {
        match self.first_without_derivatives() {
            Some(l) if needs.has(Abilities::TWINS) => {
                let number = l + 1;
                format!(
                    "layer {number} has no twin: give vjp= to a Custom layer, or twin= to an \
                     instrument"
                )
            }
            Some(l) if needs.has(Abilities::LINEAR_MAPS) => {
                format!("layer {} has no derivatives", l + 1)
            }
            _ if needs.has(Abilities::LINEAR_MAPS) => "the Stack has no linear map".into(),
            _ if needs.has(Abilities::SYMMETRIC_LIGHT) => {
                match self.first_without_symmetric_medium() {
                    Some(l) => format!(
                        "layer {} ({}) has a transfer that differs from its transpose, so that \
                         errors cannot be sent forward through it: take InSituBackprop, which \
                         sends them back",
                        l + 1,
                        self.stages[l].twin().name()
                    ),
                    None => "the Stack has no light that passes such a medium".into(),
                }
            }
            _ if needs.has(Abilities::PHASES) => {
                "each output must be a sinusoid of every parameter: phases of one layer at the \
                 end, or of light with nothing but linear layers and detectors behind, which no \
                 voltages, no crosstalk, no absorption and no steps of half a turn set"
                    .into()
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
            stage.twin().initialise(random, GROUPS * l as u32, own);
            own.iter_mut()
                .enumerate()
                .for_each(|(i, values)| stage.parts.store(i).keep_within(values));
        }
    }

    fn as_stack(&self) -> Option<&Stack<T>> {
        Some(self)
    }
}

/// What [`Stack::groups`] gives.
fn groups<T: Real>(stages: &[Stage<T>]) -> Vec<Range<usize>> {
    let linear = (1..stages.len()).filter(|&l| stages[l].is_linear_map());
    let start =
        |l: usize| if stages[l - 1].twin().role() == Role::Normalisation { l - 1 } else { l };
    let mut starts: Vec<usize> = linear.map(start).filter(|&l| l > 0).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([stages.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// What the number of steps is called that hardware which drifts has been through, in units of one
/// and of [`ROUND`]: another trainer goes on where one has stopped.
const CLOCK: &str = "clock";

/// Steps that single precision counts, each by itself.
const ROUND: f64 = 1_048_576.0;

/// Counts a step; returns how many there have been before it.
fn tick<T: Real>(clock: &mut [T]) -> u64 {
    let (steps, rounds) = (clock[0].to_f64(), clock[1].to_f64());
    let is_round = steps + 1.0 >= ROUND;
    clock[0] = T::from_f64(if is_round { 0.0 } else { steps + 1.0 });
    clock[1] = T::from_f64(if is_round { rounds + 1.0 } else { rounds });
    (ROUND * rounds + steps) as u64
}

/// A parameter of layer `l`, as it is called in the stack.
fn name_in_stack(own: ParamSpec, l: usize, numbered: bool) -> ParamSpec {
    if numbered { ParamSpec { name: format!("{}{}", own.name, l + 1), ..own } } else { own }
}

/// Refuses layers that do not fit each other, a field at the end, and noise of fields.
fn check_signals<T: Real>(stages: &[Stage<T>]) -> Result<()> {
    let shape = |text: String| Err(Error::Shape(text));
    for (l, stage) in stages.iter().enumerate() {
        let (layer, number) = (stage.twin(), l + 1);
        let (name, takes) = (layer.name(), layer.takes());
        if layer.gives().complex && stage.noise > 0.0 {
            return Err(Error::Config(format!(
                "noise must be 0 for layer {number} ({name}): nothing measures a field; give it to \
                 the layer that detects it"
            )));
        }
        let Some(before) = l.checked_sub(1).map(|before| stages[before].twin()) else {
            continue;
        };
        let arrives = before.gives();
        if arrives == takes {
            continue;
        }
        if (arrives.complex, arrives.steps, takes.complex, takes.steps) == (false, 1, false, 1) {
            return shape(format!(
                "layer {number} ({name}) takes {} inputs, but the layer before has {} outputs",
                takes.width, arrives.width
            ));
        }
        let converter = if arrives.complex { "Detect" } else { "Encode" };
        let advice = if arrives.complex == takes.complex {
            String::new()
        } else {
            format!(": put {converter} between them")
        };
        return shape(format!(
            "layer {number} ({name}) takes {takes}, but the layer before ({}) gives \
             {arrives}{advice}",
            before.name()
        ));
    }
    match stages.last().map(Stage::twin) {
        Some(last) if last.gives().complex => shape(format!(
            "the last layer ({}) gives a field, which nothing measures: put Detect behind it",
            last.name()
        )),
        _ => Ok(()),
    }
}

/// How a row has ended whose outputs are finite, or are not.
fn outcome(is_finite: bool) -> Outcome {
    let status = if is_finite { Status::Completed } else { Status::Diverged };
    Outcome { status, ..Outcome::default() }
}
