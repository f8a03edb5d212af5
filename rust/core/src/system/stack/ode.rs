//! Layers that are driven motions: Runge-Kutta steps of fourth order, and their exact transposes.

use pnncore_kernels::Real;

/// A motion s' = f(s) of rows of states.
pub(super) trait Motion<T> {
    /// States per row.
    fn states(&self) -> usize;

    /// Writes f of every row.
    fn rate(&mut self, s: &[T], rate: &mut [T]);

    /// Writes the product of the cotangents `back` of f with its Jacobian by the states, and takes note of that by inputs and
    /// parameters.
    fn pull(&mut self, s: &[T], back: &[T], into: &mut [T]);

    /// Writes how f changes as the states move along `ds`, and inputs and parameters along what the motion holds.
    fn push(&mut self, s: &[T], ds: &[T], rate: &mut [T]);
}

/// Copies the states of all rows to place `k` of their tapes.
pub(super) fn record<T: Real>(states: &[T], n: usize, k: usize, tape: &mut [T]) {
    let each = tape.len() / (states.len() / n);
    for (tape, s) in tape.chunks_exact_mut(each).zip(states.chunks_exact(n)) {
        tape[k * n..(k + 1) * n].copy_from_slice(s);
    }
}

/// Reads the states of all rows from place `k` of their tapes.
pub(super) fn recall<T: Real>(tape: &[T], n: usize, k: usize, states: &mut [T]) {
    let each = tape.len() / (states.len() / n);
    for (tape, s) in tape.chunks_exact(each).zip(states.chunks_exact_mut(n)) {
        s.copy_from_slice(&tape[k * n..(k + 1) * n]);
    }
}

/// Memory of a step: intermediate states, their rates and cotangents.
#[derive(Debug, Default)]
pub(super) struct Work<T> {
    states: [Vec<T>; 4],
    rates: [Vec<T>; 4],
    /// Cotangents of rates, or changes of states.
    back: Vec<T>,
    /// What they make of states, or of rates.
    pulled: [Vec<T>; 4],
}

/// Where the stages of a step are, in steps.
const PLACES: [f64; 4] = [0.0, 0.5, 0.5, 1.0];

/// With which weights their rates make the step.
const WEIGHTS: [f64; 4] = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0];

impl<T: Real> Work<T> {
    fn stages(&mut self, motion: &mut impl Motion<T>, h: f64, s: &[T], last_rate: bool) {
        for (stage, place) in PLACES.iter().enumerate() {
            let place = T::from_f64(place * h);
            let state = &mut self.states[stage];
            state.clear();
            state.extend_from_slice(s);
            if stage > 0 {
                state.iter_mut().zip(&self.rates[stage - 1]).for_each(|(s, &rate)| *s += place * rate);
            }
            if stage < 3 || last_rate {
                self.rates[stage].resize(s.len(), T::ZERO);
                motion.rate(&self.states[stage], &mut self.rates[stage]);
            }
        }
    }

    /// Moves states by a step of length h.
    pub(super) fn advance(&mut self, motion: &mut impl Motion<T>, h: f64, s: &mut [T]) {
        self.stages(motion, h, s, true);
        for (rates, weight) in self.rates.iter().zip(WEIGHTS) {
            let weight = T::from_f64(weight * h);
            s.iter_mut().zip(rates).for_each(|(s, &rate)| *s += weight * rate);
        }
    }

    /// Moves a change of states along with the step that began at `s`.
    pub(super) fn carry(&mut self, motion: &mut impl Motion<T>, h: f64, s: &[T], ds: &mut [T]) {
        self.stages(motion, h, s, false);
        for (stage, place) in PLACES.iter().enumerate() {
            let place = T::from_f64(place * h);
            self.back.clear();
            self.back.extend_from_slice(ds);
            if stage > 0 {
                self.back.iter_mut().zip(&self.pulled[stage - 1]).for_each(|(b, &p)| *b += place * p);
            }
            self.pulled[stage].resize(s.len(), T::ZERO);
            motion.push(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        for (changes, weight) in self.pulled.iter().zip(WEIGHTS) {
            let weight = T::from_f64(weight * h);
            ds.iter_mut().zip(changes).for_each(|(s, &change)| *s += weight * change);
        }
    }

    /// Turns dL/d(states after a step that began at `s`) into dL/ds.
    pub(super) fn retreat(&mut self, motion: &mut impl Motion<T>, h: f64, s: &[T], back: &mut [T]) {
        self.stages(motion, h, s, false);
        for stage in (0..4).rev() {
            let weight = T::from_f64(WEIGHTS[stage] * h);
            self.back.clear();
            self.back.extend(back.iter().map(|&b| weight * b));
            if stage < 3 {
                let place = T::from_f64(PLACES[stage + 1] * h);
                self.back.iter_mut().zip(&self.pulled[stage + 1]).for_each(|(b, &p)| *b += place * p);
            }
            self.pulled[stage].resize(s.len(), T::ZERO);
            motion.pull(&self.states[stage], &self.back, &mut self.pulled[stage]);
        }
        for pulled in &self.pulled {
            back.iter_mut().zip(pulled).for_each(|(b, &p)| *b += p);
        }
    }
}
