//! Coupled pendula: the oscillator network of the physics-aware-training study (Wright et al.
//! 2022).

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::trig::sin_cos;
use pnncore_kernels::{Level, Real, add_scaled, sum_rows, transpose};

use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use super::ode::{Motion, STAGES, Work};
use crate::params::ParamSpec;
use crate::scratch::Lent;
use crate::settings::{at_least_one, positive};
use crate::signal::Signal;
use crate::{Result, memory};

/// The description of coupled pendula.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendulaSpec {
    /// How many.
    pub inputs: usize,
    /// The time that they swing, in units of one over the angular frequency of small swings.
    pub time: f64,
    /// Runge-Kutta steps in that time.
    pub steps: usize,
}

impl LayerSpec for PendulaSpec {
    const KIND: &'static str = "pendula";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let Self { inputs, time, steps } = *self;
        positive("time", time)?;
        at_least_one(&[("n", inputs), ("steps", steps)])?;
        let couplings = memory::product(&[inputs, inputs]);
        Ok(LayerOutline {
            parameters: parameters(inputs),
            constants: if site.is_mismatched() { couplings } else { 0 },
            numbers: couplings.saturating_add(memory::product(&[inputs, steps, 8, ROWS])),
            ..LayerOutline::new(Signal::real(inputs), Signal::real(inputs))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Pendula::new(self.inputs, self.time, self.steps), site))
    }
}

/// q_i'' = -w_i sin q_i + sum_j J_ji (sin q_j - sin q_i) + e_i, from q = x at rest; outputs are the
/// angles after a time. The couplings J (from, to) and the torques e are parameters; w is one, off
/// in hardware.
#[derive(Debug, Clone)]
pub(super) struct Pendula<T> {
    n: usize,
    step: f64,
    steps: usize,
    stiffness: Vec<T>,
    /// Factors of the couplings; empty: one.
    gains: Vec<T>,
}

/// Rows of angles and forces that are kept until their product is taken.
const KEPT: usize = 128;

impl<T: Real> Pendula<T> {
    /// So many pendula, watched for a time in so many steps.
    fn new(n: usize, time: f64, steps: usize) -> Self {
        Self { n, step: time / steps as f64, steps, stiffness: vec![T::ONE; n], gains: Vec::new() }
    }

    fn motion<'a>(&'a self, context: LayerContext<'a, T>, rows: usize) -> Swing<'a, T> {
        let (n, square, scratch) = (self.n, self.n * self.n, context.scratch);
        let (gained, rest) = context.prepared.split_at(self.gains.len());
        let (arriving, turned) = rest.split_at(n);
        Swing {
            level: context.level,
            n,
            rows,
            couplings: if gained.is_empty() { context.params[0] } else { gained },
            torques: context.params[1],
            restoring: arriving,
            turned,
            sines: scratch.zeros(rows * n),
            cosines: scratch.zeros(rows * n),
            forces: scratch.zeros(rows * n),
            kept: (scratch.empty(), scratch.empty()),
            couplings_back: scratch.zeros(if turned.is_empty() { 0 } else { square }),
            arriving_back: scratch.zeros(n),
            torques_back: scratch.zeros(n),
            sums: scratch.zeros(n),
            along: Along {
                couplings: scratch.empty(),
                restoring: scratch.empty(),
                torques: scratch.empty(),
            },
        }
    }
}

/// The motion of a block of rows: angles, then velocities.
struct Swing<'a, T> {
    level: Level,
    n: usize,
    rows: usize,
    couplings: &'a [T],
    torques: &'a [T],
    /// Minus w_i - sum_j J_ji: what stands before sin q_i.
    restoring: &'a [T],
    /// The transposed couplings; empty where no derivatives are taken.
    turned: &'a [T],
    sines: Lent<'a, Vec<T>>,
    cosines: Lent<'a, Vec<T>>,
    forces: Lent<'a, Vec<T>>,
    /// Sines and cotangents of forces.
    kept: (Lent<'a, Vec<T>>, Lent<'a, Vec<T>>),
    couplings_back: Lent<'a, Vec<T>>,
    /// Of what stands before sin q_i.
    arriving_back: Lent<'a, Vec<T>>,
    torques_back: Lent<'a, Vec<T>>,
    /// The sums of forces that were kept.
    sums: Lent<'a, Vec<T>>,
    along: Along<'a, T>,
}

/// The direction in which parameters move: couplings, what stands before sin q_i, torques.
#[derive(Debug)]
struct Along<'a, T> {
    couplings: Lent<'a, Vec<T>>,
    restoring: Lent<'a, Vec<T>>,
    torques: Lent<'a, Vec<T>>,
}

impl<T: Real> Swing<'_, T> {
    fn turn(&mut self, s: &[T]) {
        let n = self.n;
        let rows = s
            .chunks_exact(2 * n)
            .zip(self.sines.chunks_exact_mut(n))
            .zip(self.cosines.chunks_exact_mut(n));
        rows.for_each(|((s, sin), cos)| sin_cos(self.level, &s[..n], sin, cos));
    }

    /// Adds what was kept to the cotangent of the couplings.
    fn flush(&mut self) {
        let n = self.n;
        let (sines, forces) = &self.kept;
        let sines_of = Strided { data: sines, row: 1, column: n };
        let shape = (n, sines.len() / n, n);
        multiply(
            self.level,
            sines_of,
            Dense { data: forces, stride: n },
            shape,
            &mut self.couplings_back,
            n,
        );
        self.sums.fill(T::ZERO);
        sum_rows(self.level, forces, &mut self.sums);
        add_scaled(self.level, &self.sums, T::ONE, &mut self.torques_back);
        self.level.vectorize(|| {
            for (sines, forces) in sines.chunks_exact(n).zip(forces.chunks_exact(n)) {
                let terms = self.arriving_back.iter_mut().zip(sines).zip(forces);
                terms.for_each(|((sum, &s), &f)| *sum += s * f);
            }
        });
        self.kept.0.clear();
        self.kept.1.clear();
    }
}

impl<T: Real> Motion<T> for Swing<'_, T> {
    fn states(&self) -> usize {
        2 * self.n
    }

    fn kept(&self) -> usize {
        self.n
    }

    fn rate(&mut self, s: &[T], rate: &mut [T]) {
        let n = self.n;
        self.turn(s);
        let rows = s.chunks_exact(2 * n).zip(rate.chunks_exact_mut(2 * n));
        self.level.vectorize(|| {
            for ((s, rate), sines) in rows.zip(self.sines.chunks_exact(n)) {
                let (to_angles, to_velocities) = rate.split_at_mut(n);
                to_angles.copy_from_slice(&s[n..]);
                let constants = self.restoring.iter().zip(self.torques);
                for ((force, &sin), (&restoring, &torque)) in
                    to_velocities.iter_mut().zip(sines).zip(constants)
                {
                    *force = restoring * sin + torque;
                }
            }
        });
        let sines = Strided { data: &self.sines, row: n, column: 1 };
        let couplings = Dense { data: self.couplings, stride: n };
        multiply(self.level, sines, couplings, (self.rows, n, n), &mut rate[n..], 2 * n);
    }

    fn vjp(&mut self, s: &[T], back: &[T], into: &mut [T]) {
        let n = self.n;
        self.turn(s);
        let forces = back.chunks_exact(2 * n).map(|back| &back[n..]);
        self.level.vectorize(|| {
            for (own, force) in self.forces.chunks_exact_mut(n).zip(forces.clone()) {
                let terms = own.iter_mut().zip(force).zip(self.restoring);
                terms.for_each(|((own, &f), &r)| *own = r * f);
            }
        });
        let strided = Strided { data: &back[n..], row: 2 * n, column: 1 };
        let turned = Dense { data: self.turned, stride: n };
        multiply(self.level, strided, turned, (self.rows, n, n), &mut self.forces, n);
        let rows = into.chunks_exact_mut(2 * n).zip(back.chunks_exact(2 * n));
        let slopes = self.forces.chunks_exact(n).zip(self.cosines.chunks_exact(n));
        self.level.vectorize(|| {
            for ((into, back), (force, cos)) in rows.zip(slopes) {
                let (angles, velocities) = into.split_at_mut(n);
                angles.iter_mut().zip(force).zip(cos).for_each(|((a, &f), &c)| *a = f * c);
                velocities.copy_from_slice(&back[..n]);
            }
        });
        self.kept.0.extend_from_slice(&self.sines);
        forces.for_each(|force| self.kept.1.extend_from_slice(force));
        if self.kept.0.len() >= KEPT * n {
            self.flush();
        }
    }

    fn jvp(&mut self, s: &[T], ds: &[T], rate: &mut [T]) {
        let n = self.n;
        self.turn(s);
        let Along { couplings, restoring, torques } = &self.along;
        // The sines change by cosines times the change of angles.
        for ((change, cos), ds) in self
            .forces
            .chunks_exact_mut(n)
            .zip(self.cosines.chunks_exact(n))
            .zip(ds.chunks_exact(2 * n))
        {
            change.iter_mut().zip(cos).zip(ds).for_each(|((change, &cos), &dq)| *change = cos * dq);
        }
        let rows = rate.chunks_exact_mut(2 * n).zip(ds.chunks_exact(2 * n));
        let sines = self.sines.chunks_exact(n).zip(self.forces.chunks_exact(n));
        for ((rate, ds), (sin, change)) in rows.zip(sines) {
            let (to_angles, to_velocities) = rate.split_at_mut(n);
            to_angles.copy_from_slice(&ds[n..]);
            for (i, force) in to_velocities.iter_mut().enumerate() {
                *force = self.restoring[i] * change[i] + restoring[i] * sin[i] + torques[i];
            }
        }
        for (left, right) in [(&self.forces, self.couplings), (&self.sines, couplings)] {
            let left = Strided { data: left, row: n, column: 1 };
            multiply(
                self.level,
                left,
                Dense { data: right, stride: n },
                (self.rows, n, n),
                &mut rate[n..],
                2 * n,
            );
        }
    }
}

/// Names and shapes of the parameters of `n` pendula.
fn parameters(n: usize) -> Vec<ParamSpec> {
    let couplings = ParamSpec { name: "J".into(), shape: vec![n, n] };
    vec![couplings, ParamSpec { name: "e".into(), shape: vec![n] }]
}

impl<T: Real> Layer<T> for Pendula<T> {
    fn name(&self) -> &'static str {
        "Pendula"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.n)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.n)
    }

    /// A product with the couplings, a sine and a cosine for each stage of every step.
    fn work(&self) -> usize {
        self.steps * STAGES * self.n * (self.n + 16)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.n)
    }

    /// Couplings normal with deviation 1 / n^(1/2) / 2, torques zero.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let scale = 0.5 / (self.n as f64).sqrt();
        for (k, value) in params[0].iter_mut().enumerate() {
            *value = T::from_f64(scale * random.normal(k as u64, group));
        }
        params[1].fill(T::ZERO);
    }

    fn tape(&self) -> usize {
        self.steps * STAGES * self.n
    }

    fn prepare(
        &self,
        level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        let n = self.n;
        prepared.clear();
        prepared.extend(self.gains.iter().zip(params[0]).map(|(&gain, &weight)| gain * weight));
        let gained = prepared.len();
        prepared.resize(gained + n + if derivatives { n * n } else { 0 }, T::ZERO);
        let (gained, rest) = prepared.split_at_mut(gained);
        let couplings = if gained.is_empty() { params[0] } else { gained };
        let (restoring, turned) = rest.split_at_mut(n);
        sum_rows(level, couplings, restoring);
        for (restoring, &stiffness) in restoring.iter_mut().zip(&self.stiffness) {
            *restoring = -stiffness - *restoring;
        }
        if derivatives {
            transpose(level, couplings, n, n, 0..n, turned, n);
        }
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let n = self.n;
        let mut motion = self.motion(context, rows);
        let mut state = context.scratch.zeros(rows * motion.states());
        state
            .chunks_exact_mut(2 * n)
            .zip(x.chunks_exact(n))
            .for_each(|(s, x)| s[..n].copy_from_slice(x));
        let mut work = Work::new(context.level, context.scratch);
        for k in 0..self.steps {
            work.advance(&mut motion, self.step, &mut state, k, tape);
        }
        y.chunks_exact_mut(n)
            .zip(state.chunks_exact(2 * n))
            .for_each(|(y, s)| y.copy_from_slice(&s[..n]));
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
        let n = self.n;
        let mut motion = self.motion(context, record.rows);
        let mut back = context.scratch.zeros(record.rows * 2 * n);
        back.chunks_exact_mut(2 * n)
            .zip(dy.chunks_exact(n))
            .for_each(|(b, dy)| b[..n].copy_from_slice(dy));
        let mut work = Work::new(context.level, context.scratch);
        for k in (0..self.steps).rev() {
            work.retreat(&mut motion, self.step, (k, record.tape), &mut back);
        }
        motion.flush();
        if !dx.is_empty() {
            dx.chunks_exact_mut(n)
                .zip(back.chunks_exact(2 * n))
                .for_each(|(dx, b)| dx.copy_from_slice(&b[..n]));
        }
        // Every J_ji is also part of what stands before sin q_i.
        for (row, total) in
            motion.couplings_back.chunks_exact(n).zip(gradient[0].chunks_exact_mut(n))
        {
            total
                .iter_mut()
                .zip(row)
                .zip(&*motion.arriving_back)
                .for_each(|((total, &j), &own)| *total += j - own);
        }
        if !self.gains.is_empty() {
            gradient[0].iter_mut().zip(&self.gains).for_each(|(total, &gain)| *total *= gain);
        }
        gradient[1].iter_mut().zip(&*motion.torques_back).for_each(|(total, &e)| *total += e);
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
        let n = self.n;
        let mut motion = self.motion(context, record.rows);
        let mut couplings = context.scratch.copy(along[0]);
        couplings.iter_mut().zip(&self.gains).for_each(|(j, &gain)| *j *= gain);
        let mut restoring = context.scratch.zeros(n);
        sum_rows(context.level, &couplings, &mut restoring);
        restoring.iter_mut().for_each(|sum| *sum = -*sum);
        motion.along = Along { couplings, restoring, torques: context.scratch.copy(along[1]) };
        let mut change = context.scratch.zeros(record.rows * 2 * n);
        change
            .chunks_exact_mut(2 * n)
            .zip(dx.chunks_exact(n))
            .for_each(|(s, dx)| s[..n].copy_from_slice(dx));
        let mut work = Work::new(context.level, context.scratch);
        for k in 0..self.steps {
            work.carry(&mut motion, self.step, (k, record.tape), &mut change);
        }
        dy.chunks_exact_mut(n)
            .zip(change.chunks_exact(2 * n))
            .for_each(|(dy, s)| dy.copy_from_slice(&s[..n]));
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let stiffness = factors(self.n, mismatch, random, group);
        let gains = factors(self.n * self.n, mismatch, random, group + 1);
        Box::new(Self { stiffness, gains, ..self.clone() })
    }
}
