//! Layers that inputs and parameters drive one after the other, as one waveform: a plate, and a
//! transistor circuit.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;

use super::layer::{ForwardRecord, Layer, LayerContext, vector};
use super::layer_spec::{LayerOutline, ROWS};
use super::ode::{Motion, STAGES, Work, recall, record};
use crate::params::ParamSpec;
use crate::scratch::{Lent, Scratch};
use crate::settings::at_least_one;
use crate::signal::Signal;
use crate::{Result, memory};

/// A device with one drive and one reading.
pub(super) trait Device<T>: Clone + Send + Sync + 'static {
    /// The name of the kind of layer.
    const NAME: &'static str;

    /// Its states.
    fn states(&self) -> usize;

    /// Writes the rates of change of the states of a row, driven by `u`.
    fn rate(&self, s: &[T], u: T, rate: &mut [T]);

    /// Writes the product of cotangents of the rates with their Jacobian by the states, and returns
    /// that by the drive.
    fn vjp(&self, s: &[T], u: T, back: &[T], into: &mut [T]) -> T;

    /// Writes how the rates of change move with changes of states and drive.
    fn jvp(&self, s: &[T], ds: &[T], du: T, rate: &mut [T]);

    /// What is read.
    fn reading(&self, s: &[T]) -> T;

    /// How the reading moves with a change of the states.
    fn push_reading(&self, s: &[T], ds: &[T]) -> T;

    /// Adds a cotangent of the reading to those of the states.
    fn pull_reading(&self, s: &[T], back: T, into: &mut [T]);

    /// The same device with constants that are off.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Self;
}

/// The drive is each input, then each parameter theta, for one unit of time each; after each the
/// device is read.
#[derive(Debug, Clone)]
pub(super) struct Multiplexed<D> {
    pub(super) device: D,
    pub(super) inputs: usize,
    pub(super) parameters: usize,
    /// Runge-Kutta steps per unit of time.
    pub(super) substeps: usize,
}

/// The outline of a device of so many states behind a waveform of these inputs and parameters.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) without inputs or parameters.
pub(super) fn outline(
    inputs: usize,
    parameters: usize,
    states: usize,
    substeps: usize,
) -> Result<LayerOutline> {
    at_least_one(&[("inputs", inputs), ("parameters", parameters)])?;
    let slots = inputs.saturating_add(parameters);
    Ok(LayerOutline {
        parameters: vector("theta", parameters),
        numbers: memory::product(&[slots, states, substeps * STAGES, ROWS]),
        ..LayerOutline::new(Signal::real(inputs), Signal::real(slots))
    })
}

/// The motion of a block of rows during one unit of time.
struct Driven<'a, T, D> {
    device: &'a D,
    drives: Lent<'a, Vec<T>>,
    /// Cotangents of the drives, or their changes.
    drives_back: Lent<'a, Vec<T>>,
}

impl<'a, T: Real, D> Driven<'a, T, D> {
    fn new(device: &'a D, rows: usize, scratch: &'a Scratch<T>) -> Self {
        Self { device, drives: scratch.zeros(rows), drives_back: scratch.zeros(rows) }
    }
}

impl<T: Real, D: Device<T>> Motion<T> for Driven<'_, T, D> {
    fn states(&self) -> usize {
        self.device.states()
    }

    fn rate(&mut self, s: &[T], rate: &mut [T]) {
        let n = self.device.states();
        for ((s, rate), &u) in s.chunks_exact(n).zip(rate.chunks_exact_mut(n)).zip(&*self.drives) {
            self.device.rate(s, u, rate);
        }
    }

    fn vjp(&mut self, s: &[T], back: &[T], into: &mut [T]) {
        let n = self.device.states();
        let rows = s.chunks_exact(n).zip(back.chunks_exact(n)).zip(into.chunks_exact_mut(n));
        for (((s, back), into), (&u, sum)) in
            rows.zip(self.drives.iter().zip(self.drives_back.iter_mut()))
        {
            *sum += self.device.vjp(s, u, back, into);
        }
    }

    fn jvp(&mut self, s: &[T], ds: &[T], rate: &mut [T]) {
        let n = self.device.states();
        let rows = s.chunks_exact(n).zip(ds.chunks_exact(n)).zip(rate.chunks_exact_mut(n));
        for (((s, ds), rate), &du) in rows.zip(&*self.drives_back) {
            self.device.jvp(s, ds, du, rate);
        }
    }
}

impl<D> Multiplexed<D> {
    fn slots(&self) -> usize {
        self.inputs + self.parameters
    }

    /// The states that are read in a slot: those with which the next one begins.
    fn read_state<T: Real>(&self, tape: &[T], slot: usize, states: &mut [T])
    where
        D: Device<T>,
    {
        let n = self.device.states();
        recall(tape, (STAGES * (slot + 1) * self.substeps, n), n, states);
    }

    /// The drives of all rows in a slot.
    fn drive<T: Real>(&self, slot: usize, x: &[T], theta: &[T], drives: &mut [T]) {
        if slot < self.inputs {
            drives.iter_mut().zip(x[slot..].iter().step_by(self.inputs)).for_each(|(u, &x)| *u = x);
        } else {
            drives.fill(theta[slot - self.inputs]);
        }
    }
}

impl<T: Real, D: Device<T>> Layer<T> for Multiplexed<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.slots())
    }

    /// Some ten multiply-adds for each state in each stage of every step.
    fn work(&self) -> usize {
        10 * self.slots() * self.substeps * STAGES * self.device.states()
    }

    fn specs(&self) -> Vec<ParamSpec> {
        vector("theta", self.parameters)
    }

    /// Uniform in [-1, 1).
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, value) in params[0].iter_mut().enumerate() {
            *value = T::from_f64(2.0 * random.uniform(k as u64, group) - 1.0);
        }
    }

    fn tape(&self) -> usize {
        (self.slots() * self.substeps * STAGES + 1) * self.device.states()
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let (n, slots) = (self.device.states(), self.slots());
        let mut motion = Driven::new(&self.device, rows, context.scratch);
        let mut state = context.scratch.zeros(rows * n);
        let mut work = Work::new(context.level, context.scratch);
        let h = 1.0 / self.substeps as f64;
        for slot in 0..slots {
            self.drive(slot, x, context.params[0], &mut motion.drives);
            for k in 0..self.substeps {
                work.advance(&mut motion, h, &mut state, slot * self.substeps + k, tape);
            }
            for (y, s) in y.chunks_exact_mut(slots).zip(state.chunks_exact(n)) {
                y[slot] = self.device.reading(s);
            }
        }
        record(&state, n, (STAGES * slots * self.substeps, n), tape);
        Ok(())
    }

    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let (n, slots, rows) = (self.device.states(), self.slots(), record.rows);
        let mut motion = Driven::new(&self.device, rows, context.scratch);
        let mut back = context.scratch.zeros(rows * n);
        let mut work = Work::new(context.level, context.scratch);
        let h = 1.0 / self.substeps as f64;
        let mut state = context.scratch.zeros(back.len());
        for slot in (0..slots).rev() {
            self.read_state(record.tape, slot, &mut state);
            self.drive(slot, record.x, context.params[0], &mut motion.drives);
            motion.drives_back.fill(T::ZERO);
            for ((s, back), dy) in
                state.chunks_exact(n).zip(back.chunks_exact_mut(n)).zip(dy.chunks_exact(slots))
            {
                self.device.pull_reading(s, dy[slot], back);
            }
            for k in (0..self.substeps).rev() {
                work.retreat(&mut motion, h, (slot * self.substeps + k, record.tape), &mut back);
            }
            if slot >= self.inputs {
                gradient[0][slot - self.inputs] += motion.drives_back.iter().copied().sum();
            } else if !dx.is_empty() {
                let column = dx[slot..].iter_mut().step_by(self.inputs);
                column.zip(&*motion.drives_back).for_each(|(dx, &u)| *dx = u);
            }
        }
        Ok(())
    }

    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        let (n, slots, rows) = (self.device.states(), self.slots(), record.rows);
        let mut motion = Driven::new(&self.device, rows, context.scratch);
        let zeros = || context.scratch.zeros(rows * n);
        let (mut state, mut change) = (zeros(), zeros());
        let mut work = Work::new(context.level, context.scratch);
        for slot in 0..slots {
            self.drive(slot, record.x, context.params[0], &mut motion.drives);
            self.drive(slot, dx, along[0], &mut motion.drives_back);
            for k in 0..self.substeps {
                let step = (slot * self.substeps + k, record.tape);
                work.carry(&mut motion, 1.0 / self.substeps as f64, step, &mut change);
            }
            self.read_state(record.tape, slot, &mut state);
            let read =
                dy.chunks_exact_mut(slots).zip(state.chunks_exact(n)).zip(change.chunks_exact(n));
            read.for_each(|((dy, s), ds)| dy[slot] = self.device.push_reading(s, ds));
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        Box::new(Self { device: self.device.mismatched(mismatch, random, group), ..self.clone() })
    }
}
