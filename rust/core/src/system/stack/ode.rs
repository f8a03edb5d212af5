//! Layers that are driven motions: Runge-Kutta steps of fourth order, and their exact transposes.
//! Tapes keep the stages of every step, so that derivatives need no rate again.

use pnncore_kernels::watch::poll;
use pnncore_kernels::{Level, Real};

use crate::scratch::{Lent, Scratch};

/// A motion s' = f(s) of rows of states.
pub(super) trait Motion<T> {
    /// States per row.
    fn states(&self) -> usize;

    /// On how many of the states, the first ones, the Jacobian of f depends.
    fn kept(&self) -> usize {
        self.states()
    }

    /// Writes f of every row.
    fn rate(&mut self, s: &[T], rate: &mut [T]);

    /// Writes the product of the cotangents `back` of f with its Jacobian by the states, and takes
    /// note of that by inputs and parameters.
    fn vjp(&mut self, s: &[T], back: &[T], into: &mut [T]);

    /// Writes how f changes as the states move along `ds`, and inputs and parameters along what the
    /// motion holds.
    fn jvp(&mut self, s: &[T], ds: &[T], rate: &mut [T]);
}

/// Writes the first states of all rows of `n` to place `k` of their tapes, of `kept` numbers; none
/// where there are no tapes.
pub(super) fn record<T: Real>(states: &[T], n: usize, (k, kept): (usize, usize), tape: &mut [T]) {
    if tape.is_empty() {
        return;
    }
    let each = tape.len() / (states.len() / n);
    for (tape, s) in tape.chunks_exact_mut(each).zip(states.chunks_exact(n)) {
        tape[k * kept..(k + 1) * kept].copy_from_slice(&s[..kept]);
    }
}

/// Reads the first states of all rows of `n` from place `k` of their tapes, of `kept` numbers.
pub(super) fn recall<T: Real>(tape: &[T], (k, kept): (usize, usize), n: usize, states: &mut [T]) {
    let each = tape.len() / (states.len() / n);
    for (tape, s) in tape.chunks_exact(each).zip(states.chunks_exact_mut(n)) {
        s[..kept].copy_from_slice(&tape[k * kept..(k + 1) * kept]);
    }
}

/// Memory of a step: intermediate states, their rates and cotangents.
#[derive(Debug)]
pub(super) struct Work<'a, T> {
    level: Level,
    states: [Lent<'a, Vec<T>>; STAGES],
    rates: [Lent<'a, Vec<T>>; STAGES],
    /// Cotangents of rates, or changes of states.
    back: Lent<'a, Vec<T>>,
    /// What they make of states, or of rates.
    pulled: [Lent<'a, Vec<T>>; STAGES],
}

/// Stages of a step: so many places of the tape.
pub(super) const STAGES: usize = 4;

/// Where the stages of a step are, in steps.
const PLACES: [f64; STAGES] = [0.0, 0.5, 0.5, 1.0];

/// With which weights their rates make the step.
const WEIGHTS: [f64; STAGES] = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0];

impl<'a, T: Real> Work<'a, T> {
    pub(super) fn new(level: Level, scratch: &'a Scratch<T>) -> Self {
        let buffers = || std::array::from_fn(|_| scratch.empty());
        let (states, rates, pulled) = (buffers(), buffers(), buffers());
        Self { level, states, rates, back: scratch.empty(), pulled }
    }

    /// Moves states by step number `k`, of length h, and records its stages.
    pub(super) fn advance(
        &mut self,
        motion: &mut impl Motion<T>,
        h: f64,
        s: &mut [T],
        k: usize,
        tape: &mut [T],
    ) {
        poll(64 * s.len());
        for (stage, place) in PLACES.iter().enumerate() {
            let place = T::from_f64(place * h);
            let state = &mut self.states[stage];
            match stage.checked_sub(1) {
                Some(before) => moved(self.level, s, place, &self.rates[before], state),
                None => moved(self.level, s, place, &[], state),
            }
            record(state, motion.states(), (STAGES * k + stage, motion.kept()), tape);
            self.rates[stage].resize(s.len(), T::ZERO);
            motion.rate(state, &mut self.rates[stage]);
        }
        add_weighted(self.level, h, &self.rates, s);
    }

    /// Reads the stages of step number `k`, as far as Jacobians depend on them.
    fn recall(&mut self, motion: &impl Motion<T>, len: usize, k: usize, tape: &[T]) {
        poll(64 * len);
        for (stage, states) in self.states.iter_mut().enumerate() {
            states.resize(len, T::ZERO);
            recall(tape, (STAGES * k + stage, motion.kept()), motion.states(), states);
        }
    }

    /// Moves a change of states along with step number `k`.
    pub(super) fn carry(
        &mut self,
        motion: &mut impl Motion<T>,
        h: f64,
        (k, tape): (usize, &[T]),
        ds: &mut [T],
    ) {
        self.recall(motion, ds.len(), k, tape);
        for (stage, place) in PLACES.iter().enumerate() {
            let place = T::from_f64(place * h);
            match stage.checked_sub(1) {
                Some(before) => moved(self.level, ds, place, &self.pulled[before], &mut self.back),
                None => moved(self.level, ds, place, &[], &mut self.back),
            }
            self.pulled[stage].resize(ds.len(), T::ZERO);
            motion.jvp(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        add_weighted(self.level, h, &self.pulled, ds);
    }

    /// Turns dL/d(states after step number `k`) into dL/d(states before it).
    pub(super) fn retreat(
        &mut self,
        motion: &mut impl Motion<T>,
        h: f64,
        (k, tape): (usize, &[T]),
        back: &mut [T],
    ) {
        self.recall(motion, back.len(), k, tape);
        for stage in (0..STAGES).rev() {
            let weight = T::from_f64(WEIGHTS[stage] * h);
            self.back.resize(back.len(), T::ZERO);
            let (own, later) = (&mut self.back, self.pulled.get(stage + 1));
            let place = T::from_f64(PLACES.get(stage + 1).copied().unwrap_or(0.0) * h);
            self.level.vectorize(|| {
                own.iter_mut().zip(&*back).for_each(|(own, &b)| *own = weight * b);
                if let Some(later) = later {
                    own.iter_mut().zip(&**later).for_each(|(own, &p)| *own += place * p);
                }
            });
            self.pulled[stage].resize(back.len(), T::ZERO);
            motion.vjp(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        for pulled in &self.pulled {
            self.level.vectorize(|| back.iter_mut().zip(&**pulled).for_each(|(b, &p)| *b += p));
        }
    }
}

/// Writes states moved by `place` times rates; empty ones are zero.
fn moved<T: Real>(level: Level, s: &[T], place: T, rates: &[T], into: &mut Vec<T>) {
    if rates.is_empty() {
        into.clear();
        into.extend_from_slice(s);
        return;
    }
    into.resize(s.len(), T::ZERO);
    level.vectorize(|| {
        for ((into, &s), &rate) in into.iter_mut().zip(s).zip(rates) {
            *into = s + place * rate;
        }
    });
}

/// Adds the rates of all stages, as they make a step of length h.
fn add_weighted<T: Real>(level: Level, h: f64, rates: &[Lent<'_, Vec<T>>; STAGES], s: &mut [T]) {
    let [a, b, c, d] = WEIGHTS.map(|weight| T::from_f64(weight * h));
    let n = s.len();
    let [first, second, third, fourth] = rates.each_ref().map(|rates| &rates[..n]);
    level.vectorize(|| {
        for (i, s) in s.iter_mut().enumerate() {
            *s = *s + a * first[i] + b * second[i] + c * third[i] + d * fourth[i];
        }
    });
}
