//! Meshes that are programmed: the phases that make a given matrix.
//!
//! Unitary matrices are decomposed as by Clements et al. and by Reck et al.: interferometers turn
//! elements of the matrix to zero, one after the other. Known errors of couplers are made up for,
//! interferometer by interferometer (Bandyopadhyay et al., Optica 8, 1247, 2021): each splits power
//! as it should where its couplers allow that, and phases in its arms go on to the next ones.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use num_complex::Complex64;

use super::MZIMesh;
use super::layout::{Circuit, MeshLayout};
use super::shifters::Shifters;
use super::spec::MZIMeshSpec;
use crate::{Error, Result};

/// A square matrix of complex numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Square {
    n: usize,
    elements: Vec<Complex64>,
}

/// What a mesh is to make of light.
#[derive(Debug, Clone)]
pub enum MeshTarget {
    /// A unitary matrix.
    Unitary(Square),
    /// U S V^H: the unitary matrices U and V^H, and singular values of at most one.
    Factors(Square, Vec<f64>, Square),
}

/// The phase shifters of interferometers, in the order in which light meets them.
struct Turn {
    top: usize,
    theta: f64,
    phi: f64,
}

impl Square {
    /// A matrix of n times n elements, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] where there are not as many.
    pub fn new(n: usize, elements: Vec<Complex64>) -> Result<Self> {
        if n.checked_mul(n) != Some(elements.len()) {
            return Err(Error::Shape(format!(
                "matrix must have {n} x {n} elements, got {}",
                elements.len()
            )));
        }
        Ok(Self { n, elements })
    }

    fn at(&self, row: usize, column: usize) -> Complex64 {
        self.elements[row * self.n + column]
    }

    /// Multiplies by an interferometer on the columns `top` and `top + 1`, or on the rows.
    fn mix(&mut self, top: usize, [a, b, c, d]: [Complex64; 4], columns: bool) {
        let n = self.n;
        for k in 0..n {
            let (i, j) = if columns {
                (k * n + top, k * n + top + 1)
            } else {
                (top * n + k, top * n + n + k)
            };
            let (x, y) = (self.elements[i], self.elements[j]);
            (self.elements[i], self.elements[j]) = if columns {
                (x * a + y * c, x * b + y * d)
            } else {
                (a * x + b * y, c * x + d * y)
            };
        }
    }
}

/// T(theta, phi) with couplers of angle pi / 4: i e^{i theta / 2} [[s e^{i phi}, c], [c e^{i phi},
/// -s]], with s and c of theta / 2.
fn interferometer(theta: f64, phi: f64) -> [Complex64; 4] {
    let ((s, c), phi) = ((theta / 2.0).sin_cos(), Complex64::cis(phi));
    let factor = Complex64::cis(theta / 2.0 + FRAC_PI_2);
    [factor * s * phi, factor * c, factor * c * phi, -factor * s]
}

/// The conjugate transpose.
fn adjoint([a, b, c, d]: [Complex64; 4]) -> [Complex64; 4] {
    [a.conj(), c.conj(), b.conj(), d.conj()]
}

/// The angle whose tangent is |x| / |y|; where both are zero, the one with which light stays where
/// it is.
fn angle(x: Complex64, y: Complex64) -> f64 {
    let (x, y) = (x.norm(), y.norm());
    if x == 0.0 && y == 0.0 { FRAC_PI_2 } else { x.atan2(y) }
}

/// theta and phi of the interferometer whose inverse, on columns x and y of a row, makes the first
/// one zero.
fn null_left(x: Complex64, y: Complex64) -> (f64, f64) {
    // (x, y) T^-1 has x s e^{-i phi} + y c in its first place, times a phase.
    (2.0 * angle(y, x), x.arg() - y.arg() + PI)
}

/// theta and phi of the interferometer that, on rows x above y of a column, makes the lower one
/// zero.
fn null_lower(x: Complex64, y: Complex64) -> (f64, f64) {
    // T (x, y) has c e^{i phi} x - s y in its second place, times a phase.
    (2.0 * angle(x, y), y.arg() - x.arg())
}

/// The interferometers of a rectangle, and the phases behind them.
fn clements(mut unitary: Square) -> (Vec<Turn>, Vec<f64>) {
    let n = unitary.n;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for i in 0..n - 1 {
        for j in 0..=i {
            if i % 2 == 0 {
                let (row, top) = (n - 1 - j, i - j);
                let (theta, phi) = null_left(unitary.at(row, top), unitary.at(row, top + 1));
                unitary.mix(top, adjoint(interferometer(theta, phi)), true);
                first.push(Turn { top, theta, phi });
            } else {
                let (top, column) = (n + j - i - 2, j);
                let (theta, phi) = null_lower(unitary.at(top, column), unitary.at(top + 1, column));
                unitary.mix(top, interferometer(theta, phi), false);
                last.push(Turn { top, theta, phi });
            }
        }
    }
    let mut ends: Vec<f64> = (0..n).map(|k| unitary.at(k, k).arg()).collect();
    // T^-1 D = D' T': those that multiply rows come behind the phases, and go in front of them.
    for Turn { top, theta, phi } in last.into_iter().rev() {
        let (upper, lower) = (ends[top], ends[top + 1]);
        ends[top] = lower - theta - phi + PI;
        ends[top + 1] = lower - theta + PI;
        first.push(Turn { top, theta, phi: upper - lower });
    }
    (first, ends)
}

/// The interferometers of a triangle, and the phases behind them.
fn reck(mut unitary: Square) -> (Vec<Turn>, Vec<f64>) {
    let n = unitary.n;
    let mut turns = Vec::new();
    for row in (1..n).rev() {
        for top in 0..row {
            let (theta, phi) = null_left(unitary.at(row, top), unitary.at(row, top + 1));
            unitary.mix(top, adjoint(interferometer(theta, phi)), true);
            turns.push(Turn { top, theta, phi });
        }
    }
    (turns, (0..n).map(|k| unitary.at(k, k).arg()).collect())
}

/// Phases of all interferometers of a mesh: theta, phi and gamma.
struct Phases {
    theta: Vec<f64>,
    phi: Vec<f64>,
    gamma: Vec<f64>,
}

impl Phases {
    /// Phases of a circuit in which light stays in its waveguide wherever no turn comes.
    fn straight(circuit: &Circuit) -> Self {
        let count = circuit.pairs.len();
        Self {
            theta: vec![PI; count],
            phi: vec![0.0; count],
            gamma: vec![0.0; circuit.outputs.len()],
        }
    }

    /// Gives turns to the interferometers from number `from` on, those of a pair of waveguides in
    /// their order.
    fn set(&mut self, circuit: &Circuit, from: usize, mode: usize, turns: &[Turn]) {
        let mut next = vec![from; circuit.waveguides];
        for turn in turns {
            let top = mode + turn.top;
            let found = (next[top]..circuit.pairs.len()).find(|&k| {
                let [a, b] = circuit.pairs[k];
                a as usize == top && b == a + 1
            });
            let Some(k) = found else { continue };
            (self.theta[k], self.phi[k], next[top]) = (turn.theta, turn.phi, k + 1);
        }
    }

    /// Makes up for couplers of these angles.
    fn correct(&mut self, circuit: &Circuit, angles: &[[f64; 2]]) {
        let mut off = vec![0.0; circuit.waveguides];
        for (k, (&[a, b], angles)) in circuit.pairs.iter().zip(angles).enumerate() {
            let (a, b) = (a as usize, b as usize);
            if *angles == [FRAC_PI_4; 2] {
                // Nothing to make up for but phases in front.
                (self.phi[k], off[a]) = (self.phi[k] + off[b] - off[a], off[b]);
                continue;
            }
            let corrected = corrected(self.theta[k], self.phi[k], *angles, [off[a], off[b]]);
            (self.theta[k], self.phi[k]) = (corrected.0, corrected.1);
            [off[a], off[b]] = corrected.2;
        }
        for (gamma, k) in self.gamma.iter_mut().zip(circuit.outputs.clone()) {
            *gamma -= off[k];
        }
    }
}

/// theta and phi with which couplers of these angles do what ideal ones would do with `theta` and
/// `phi`, but for phases behind them, which come third; `off` are those of the fields in front.
fn corrected(theta: f64, phi: f64, angles: [f64; 2], off: [f64; 2]) -> (f64, f64, [f64; 2]) {
    let [(s, c), (t, d)] = angles.map(f64::sin_cos);
    // The power that stays, |d c e^{i theta} - t s|^2 = (d c - t s)^2 + 4 c d s t sin^2(theta / 2),
    // is that of sin^2(theta / 2), or as near to it as couplers allow; it is told from the half
    // angle's sine and cosine, for either may be near zero. With a coupler that does not couple
    // there is nothing to turn.
    let both = 4.0 * c * d * s * t;
    let (sin, cos) = (theta / 2.0).sin_cos();
    let against = (angles[0] + angles[1]).cos().powi(2);
    let apart = (angles[0] - angles[1]).sin().powi(2);
    let turned = if both == 0.0 {
        theta
    } else {
        let [sin, cos] = [(sin * sin - against) / both, (cos * cos - apart) / both];
        2.0 * sin.max(0.0).sqrt().atan2(cos.max(0.0).sqrt())
    };
    let (i, e) = (Complex64::i(), Complex64::cis(turned));
    let real = [
        e * (d * c) - t * s,
        i * (e * (d * s) + t * c),
        i * (e * (t * c) + d * s),
        -e * (t * s) + d * c,
    ];
    let ideal = interferometer(theta, 0.0);
    // By how much the phase of every element is ahead of that of the ideal one.
    let ahead: [f64; 4] = std::array::from_fn(|k| (real[k] * ideal[k].conj()).arg());
    // Phases behind are told from the elements that matter more, phi from one that matters less.
    if real[1].norm_sqr() >= real[0].norm_sqr() {
        let upper = ahead[1] + off[1];
        let shifted = upper + phi - off[0] - ahead[0];
        (turned, shifted, [upper, ahead[2] + shifted + off[0] - phi])
    } else {
        let lower = ahead[3] + off[1];
        let shifted = lower + phi - off[0] - ahead[2];
        (turned, shifted, [ahead[0] + shifted + off[0] - phi, lower])
    }
}

impl MZIMeshSpec {
    /// The settings theta, phi and gamma with which the mesh makes a matrix, its known errors of
    /// couplers made up for.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] for matrices of another size
    /// or kind than the layout makes.
    pub fn program(&self, target: &MeshTarget) -> Result<[Vec<f64>; 3]> {
        self.check()?;
        let (inputs, outputs) = (self.inputs, self.outputs);
        let fits = match target {
            MeshTarget::Unitary(unitary) => self.layout != MeshLayout::Svd && unitary.n == inputs,
            MeshTarget::Factors(u, values, v) => {
                self.layout == MeshLayout::Svd
                    && (u.n, v.n, values.len()) == (outputs, inputs, inputs.min(outputs))
            }
        };
        if !fits {
            return Err(Error::Shape(format!(
                "matrix must be one of {outputs} x {inputs} elements, as the mesh makes"
            )));
        }
        let circuit = self.layout.circuit(inputs, outputs);
        let mut phases = Phases::straight(&circuit);
        match target {
            MeshTarget::Unitary(unitary) => {
                let triangle = self.layout != MeshLayout::Clements;
                let (turns, ends) =
                    if triangle { reck(unitary.clone()) } else { clements(unitary.clone()) };
                phases.set(&circuit, 0, circuit.inputs.start, &turns);
                phases.gamma = ends;
            }
            MeshTarget::Factors(u, values, v) => {
                let first = inputs * (inputs - 1) / 2;
                let (turns, ends) = clements(v.clone());
                phases.set(&circuit, 0, 0, &turns);
                for (k, &value) in values.iter().enumerate() {
                    // i e^{i theta / 2} sin(theta / 2) e^{i phi} is the singular value, and the
                    // phase behind V^H.
                    let theta = 2.0 * value.clamp(0.0, 1.0).asin();
                    phases.theta[first + k] = theta;
                    phases.phi[first + k] = ends[k] - FRAC_PI_2 - theta / 2.0;
                }
                let (turns, ends) = clements(u.clone());
                phases.set(&circuit, first + values.len(), 0, &turns);
                phases.gamma = ends;
            }
        }
        let mesh = MZIMesh::new(
            circuit.clone(),
            self.angles(circuit.pairs.len()),
            Shifters::new(&circuit, self.half_wave_voltage),
        );
        phases.correct(&circuit, &mesh.angles);
        let settings = |phases: Vec<f64>| {
            let wrapped = phases.into_iter().map(|phase| phase.rem_euclid(2.0 * PI));
            wrapped.map(|phase| mesh.shifters.setting(phase)).collect()
        };
        Ok([settings(phases.theta), settings(phases.phi), settings(phases.gamma)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unitary matrix: rotations of pairs of random angles, and phases.
    fn unitary(n: usize, seed: u64) -> Square {
        let random =
            pnncore_kernels::philox::Philox::new(seed, pnncore_kernels::philox::Purpose::Disorder);
        let mut found = Square::new(n, vec![Complex64::new(0.0, 0.0); n * n]).unwrap();
        for k in 0..n {
            found.elements[k * n + k] = Complex64::cis(6.3 * random.uniform(k as u64, 0));
        }
        for k in 0..(3 * n * n) as u64 {
            let top = (random.uniform(k, 1) * (n - 1) as f64) as usize;
            let own = interferometer(3.0 * random.uniform(k, 2), 6.3 * random.uniform(k, 3));
            found.mix(top, own, k % 2 == 0);
        }
        found
    }

    /// The matrix that turns make, as light meets them.
    fn made(n: usize, turns: &[Turn], ends: &[f64]) -> Square {
        let mut found = Square::new(n, vec![Complex64::new(0.0, 0.0); n * n]).unwrap();
        (0..n).for_each(|k| found.elements[k * n + k] = Complex64::new(1.0, 0.0));
        for turn in turns {
            found.mix(turn.top, interferometer(turn.theta, turn.phi), false);
        }
        for (k, &end) in ends.iter().enumerate() {
            found.elements[k * n..(k + 1) * n].iter_mut().for_each(|z| *z *= Complex64::cis(end));
        }
        found
    }

    #[test]
    fn decompositions_make_the_matrix() {
        for n in 1..12 {
            let wanted = unitary(n.max(2), n as u64);
            for (turns, ends) in [clements(wanted.clone()), reck(wanted.clone())] {
                let found = made(wanted.n, &turns, &ends);
                let apart =
                    wanted.elements.iter().zip(&found.elements).map(|(a, b)| (a - b).norm());
                assert!(apart.fold(0.0, f64::max) < 1e-13, "{n}");
            }
        }
    }

    #[test]
    fn interferometers_with_known_couplers_do_what_ideal_ones_do() {
        for (theta, phi) in [(0.3, 1.0), (1.5, -2.0), (3.0, 0.4), (2.0, 3.0)] {
            for angles in [[0.8, 0.75], [0.7, 0.72], [FRAC_PI_4, 0.9]] {
                let off = [0.3, -1.1];
                let (turned, shifted, behind) = corrected(theta, phi, angles, off);
                let [(s, c), (t, d)] = angles.map(f64::sin_cos);
                let (i, e, f) = (Complex64::i(), Complex64::cis(turned), Complex64::cis(shifted));
                let real = [
                    (e * (d * c) - t * s) * f,
                    i * (e * (d * s) + t * c),
                    i * (e * (t * c) + d * s) * f,
                    -e * (t * s) + d * c,
                ];
                let stays = (theta / 2.0).sin();
                let reachable = (s * t - c * d).abs() <= stays && stays <= c * d + s * t;
                let ideal = interferometer(theta, phi);
                for k in 0..4 {
                    let (row, column) = (k / 2, k % 2);
                    let found = real[k] * Complex64::cis(off[column]);
                    let wanted = ideal[k] * Complex64::cis(behind[row]);
                    assert!(
                        !reachable || (found - wanted).norm() < 1e-13,
                        "{theta} {angles:?} {k}"
                    );
                }
            }
        }
    }
}
