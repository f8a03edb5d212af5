//! Layers that are driven motions: Runge-Kutta steps of fourth order, and their exact transposes.
//! Tapes keep the stages of every step, so that derivatives need no rate again.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

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
    pub(super) fn new(scratch: &'a Scratch<T>) -> Self {
        let buffers = || std::array::from_fn(|_| scratch.empty());
        Self { states: buffers(), rates: buffers(), back: scratch.empty(), pulled: buffers() }
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
            state.clear();
            state.extend_from_slice(s);
            if stage > 0 {
                state
                    .iter_mut()
                    .zip(&*self.rates[stage - 1])
                    .for_each(|(s, &rate)| *s += place * rate);
            }
            record(state, motion.states(), (STAGES * k + stage, motion.kept()), tape);
            self.rates[stage].resize(s.len(), T::ZERO);
            motion.rate(state, &mut self.rates[stage]);
        }
        for (rates, weight) in self.rates.iter().zip(WEIGHTS) {
            let weight = T::from_f64(weight * h);
            s.iter_mut().zip(&**rates).for_each(|(s, &rate)| *s += weight * rate);
        }
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
            self.back.clear();
            self.back.extend_from_slice(ds);
            if stage > 0 {
                self.back
                    .iter_mut()
                    .zip(&*self.pulled[stage - 1])
                    .for_each(|(b, &p)| *b += place * p);
            }
            self.pulled[stage].resize(ds.len(), T::ZERO);
            motion.jvp(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        for (changes, weight) in self.pulled.iter().zip(WEIGHTS) {
            let weight = T::from_f64(weight * h);
            ds.iter_mut().zip(&**changes).for_each(|(s, &change)| *s += weight * change);
        }
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
            self.back.clear();
            self.back.extend(back.iter().map(|&b| weight * b));
            if stage + 1 < STAGES {
                let place = T::from_f64(PLACES[stage + 1] * h);
                self.back
                    .iter_mut()
                    .zip(&*self.pulled[stage + 1])
                    .for_each(|(b, &p)| *b += place * p);
            }
            self.pulled[stage].resize(back.len(), T::ZERO);
            motion.vjp(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        for pulled in &self.pulled {
            back.iter_mut().zip(&**pulled).for_each(|(b, &p)| *b += p);
        }
    }
}
