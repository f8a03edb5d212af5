//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random
//! numbers: as easy as 1, 2, 3, SC11).
//!
//! A number is a function of what is drawn, never of who draws it: the key is (seed, purpose), the
//! counter says which number. There is no state to save.

use crate::level::{Level, dispatch};
use crate::simd::{Real, Vector};
use crate::trig::turn as turn_vector;
use crate::watch::poll;

/// What random numbers are drawn for. Different purposes are independent streams of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial parameters. Counter: element, parameter.
    Initialise = 1,
    /// The order of the samples. Counter: position, epoch.
    Shuffle = 2,
    /// Random choices of a method, such as the sign of beta. Counter: step.
    Method = 3,
    /// Probe vectors of audits and checks.
    Probe = 4,
    /// Which elements of a device are defective. Counter: element, parameter.
    Defects = 5,
    /// Noise and rounding of writes to a device. Counter: write, parameter (and which of the two).
    Write = 6,
    /// The constants of disordered physics, such as a scattering medium. Counter: element, layer
    /// (and which constant).
    Disorder = 7,
    /// How far hardware is from its twin. Counter: element, layer (and which constant).
    Mismatch = 8,
    /// Noise of signals. Counter: row and signal, layer; the key holds the pass.
    Noise = 9,
    /// Feedback matrices. Counter: element, layer.
    Feedback = 10,
    /// Directions in which parameters are perturbed. Counter: element, parameter; the key holds
    /// step and direction.
    Direction = 11,
    /// How cells of an array differ from each other. Counter: cell, array (and which constant).
    Cells = 12,
    /// Pulse trains, and what pulses do. Counter: row and cells, array (and which of these); the
    /// key holds the step.
    Pulses = 13,
    /// How hardware drifts from step to step. Counter: element, layer (and which constant); the key
    /// holds the step.
    Drift = 14,
}

/// One stream of random numbers.
#[derive(Debug, Clone, Copy)]
pub struct Philox {
    key: [u32; 2],
    purpose: u32,
}

impl Philox {
    /// The stream of a seed and a purpose.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], purpose: purpose as u32 }
    }

    /// The stream of the same purpose for a draw (a pass, say): another key, by the finaliser of
    /// SplitMix64.
    #[must_use]
    pub fn at(self, draw: u64) -> Self {
        let mut z = draw.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        Self { key: [self.key[0] ^ z as u32, self.key[1] ^ (z >> 32) as u32], ..self }
    }

    /// What kernels draw from themselves: the last words of the counter of a group, and the key.
    pub(crate) fn stream(&self, group: u32) -> ([u32; 2], [u32; 2]) {
        ([group, self.purpose], self.key)
    }

    /// The four words of draw `index` in `group` (an epoch, a parameter, a step).
    pub fn words(&self, index: u64, group: u32) -> [u32; 4] {
        philox4x32_10([index as u32, (index >> 32) as u32, group, self.purpose], self.key)
    }

    /// A number uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&self, index: u64, group: u32) -> f64 {
        let [a, b, ..] = self.words(index, group);
        let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
        bits as f64 * (-53f64).exp2()
    }

    /// Fills `out` with numbers uniform in (0, 1), odd multiples of 2^-33 rounded to the type:
    /// those of the group from `first` on. Sixteen draws side by side give sixty-four numbers,
    /// first those of the first word of each.
    ///
    /// # Panics
    /// If `first` is no multiple of 64.
    pub fn fill<T: Real>(&self, level: Level, first: u64, group: u32, out: &mut [T]) {
        assert!(first.is_multiple_of(4 * LANES as u64), "numbers come in blocks");
        for (piece, out) in out.chunks_mut(PIECE).enumerate() {
            poll(4 * out.len());
            fill(level, (first + (piece * PIECE) as u64) / 4, [group, self.purpose], self.key, out);
        }
    }

    /// Fills `out` with standard normal numbers (Box and Muller, from numbers of 32 bits in single
    /// precision: beyond 6.7 deviations there are none): those of the group from `first` on. Each
    /// draw gives four.
    ///
    /// # Panics
    /// If `first` is no multiple of 64.
    pub fn fill_normal<T: Real>(&self, level: Level, first: u64, group: u32, out: &mut [T]) {
        assert!(first.is_multiple_of(4 * LANES as u64), "numbers come in blocks");
        for (piece, out) in out.chunks_mut(PIECE).enumerate() {
            poll(16 * out.len());
            fill_normal(
                level,
                (first + (piece * PIECE) as u64) / 4,
                [group, self.purpose],
                self.key,
                out,
            );
        }
    }

    /// An integer uniform in `0..bound` (bias below 2^-64 * bound).
    pub fn below(&self, bound: u64, index: u64, group: u32) -> u64 {
        let [a, b, c, d] = self.words(index, group);
        let hi = u128::from(u64::from(a) << 32 | u64::from(b));
        let lo = u128::from(u64::from(c) << 32 | u64::from(d));
        // The top 64 bits of a 128-bit fraction times the bound.
        let bound = u128::from(bound);
        ((hi * bound + ((lo * bound) >> 64)) >> 64) as u64
    }

    /// A standard normal number (Box-Muller).
    pub fn normal(&self, index: u64, group: u32) -> f64 {
        let [a, b, c, d] = self.words(index, group);
        let unit = |hi: u32, lo: u32| {
            ((u64::from(hi) << 32 | u64::from(lo)) >> 11) as f64 * (-53f64).exp2()
        };
        // 1 - u is in (0, 1]: the logarithm is finite.
        (-2.0 * (1.0 - unit(a, b)).ln()).sqrt() * (std::f64::consts::TAU * unit(c, d)).cos()
    }

    /// Writes a permutation of `0..order.len()`: Fisher-Yates with the draws of `group`.
    pub fn shuffle(&self, order: &mut [u64], group: u32) {
        for (i, slot) in order.iter_mut().enumerate() {
            *slot = i as u64;
        }
        for i in (1..order.len()).rev() {
            poll(64);
            order.swap(i, self.below(i as u64 + 1, i as u64, group) as usize);
        }
    }
}

dispatch! {
    /// [`Philox::fill`], from a draw on.
    fn fill<T>(level: Level, draw: u64, counter: [u32; 2], key: [u32; 2], out: &mut [T]) = fill_body
}

dispatch! {
    /// [`Philox::fill_normal`], from a draw on.
    fn fill_normal<T>(
        level: Level, draw: u64, counter: [u32; 2], key: [u32; 2], out: &mut [T],
    ) = fill_normal_body
}

/// Numbers that are made between two looks for interrupts.
const PIECE: usize = 1 << 16;

/// 2^-32.
const UNIT: f64 = 1.0 / 4_294_967_296.0;

/// Draws that are made side by side.
pub(crate) const LANES: usize = 16;

/// Numbers of a block of draws, where no vector crosses a line of the cache: what is written to two
/// lines is slow to read back.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Block<T>(pub [[T; LANES]; 4]);

/// The words of draws `draw..draw + LANES`.
#[inline(always)]
pub(crate) fn block_of_words(draw: u64, counter: [u32; 2], key: [u32; 2]) -> [[u32; LANES]; 4] {
    let index: [u64; LANES] = std::array::from_fn(|lane| draw + lane as u64);
    philox_lanes(
        [
            index.map(|i| i as u32),
            index.map(|i| (i >> 32) as u32),
            [counter[0]; LANES],
            [counter[1]; LANES],
        ],
        key,
    )
}

#[inline(always)]
pub(crate) fn fill_normal_body<V: Vector>(
    draw: u64,
    counter: [u32; 2],
    key: [u32; 2],
    out: &mut [V::Scalar],
) {
    for (block, out) in out.chunks_mut(4 * LANES).enumerate() {
        let words = block_of_words(draw + (block * LANES) as u64, counter, key);
        let Block(mut normals) = Block([[V::Scalar::ZERO; LANES]; 4]);
        for half in 0..2 {
            let mut radii = [V::Scalar::ZERO; LANES];
            for (drawn, &word) in radii.iter_mut().zip(&words[2 * half]) {
                *drawn = Real::from_f64(f64::from(radius(word)));
            }
            let turn: V::Scalar = Real::from_f64(std::f64::consts::TAU * UNIT);
            // Centred, where sines and cosines are most exact.
            let mut angles = [V::Scalar::ZERO; LANES];
            for (angle, &word) in angles.iter_mut().zip(&words[2 * half + 1]) {
                *angle = turn * Real::from_i32(word as i32);
            }
            for j in (0..LANES).step_by(V::LANES) {
                // SAFETY: LANES is a multiple of V::LANES; `dispatch!` vouches for the instruction
                // set.
                unsafe {
                    let (sin, cos) = turn_vector(V::load(angles.as_ptr().add(j)));
                    let radius = V::load(radii.as_ptr().add(j));
                    radius.mul(cos).store(normals[2 * half].as_mut_ptr().add(j));
                    radius.mul(sin).store(normals[2 * half + 1].as_mut_ptr().add(j));
                }
            }
        }
        copy_block(&normals, out);
    }
}

/// sqrt(-2 ln u) for u = (word + 1/2) / 2^32, without branches: a form that compilers make vectors
/// of. The logarithm is that of u = 2^e m with m between sqrt(1/2) and sqrt(2), and the polynomial
/// for ln m of the Cephes library.
#[inline(always)]
fn radius(word: u32) -> f32 {
    const LN: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let u = (word as f32 + 0.5) * UNIT as f32;
    // Adding the difference of one and sqrt(1/2) to the bits carries to the exponent where m is
    // above.
    let bits = u.to_bits().wrapping_add(0x3F80_0000 - 0x3F35_04F3);
    let exponent = (bits >> 23) as i32 - 127;
    let m = f32::from_bits((bits & 0x007F_FFFF) + 0x3F35_04F3) - 1.0;
    let mut sum = LN[0];
    for c in &LN[1..] {
        sum = sum * m + c;
    }
    let log = exponent as f32 * std::f32::consts::LN_2 + (m + (sum * m - 0.5) * m * m);
    // u may round to one, and the logarithm to a little above zero.
    (-2.0 * log).max(0.0).sqrt()
}

#[inline(always)]
pub(crate) fn fill_body<V: Vector>(
    draw: u64,
    counter: [u32; 2],
    key: [u32; 2],
    out: &mut [V::Scalar],
) {
    let (unit, half): (V::Scalar, V::Scalar) = (Real::from_f64(UNIT), Real::from_f64(0.5 * UNIT));
    for (block, out) in out.chunks_mut(4 * LANES).enumerate() {
        let words = block_of_words(draw + (block * LANES) as u64, counter, key);
        let mut uniform = [[V::Scalar::ZERO; LANES]; 4];
        for k in 0..4 {
            for lane in 0..LANES {
                uniform[k][lane] = <V::Scalar as Real>::from_u32(words[k][lane]) * unit + half;
            }
        }
        copy_block(&uniform, out);
    }
}

/// Copies as much of a block as `out` takes.
#[inline(always)]
fn copy_block<T: Copy>(block: &[[T; LANES]; 4], out: &mut [T]) {
    let block = block.as_flattened();
    if out.len() == block.len() {
        out.copy_from_slice(block);
    } else {
        out.copy_from_slice(&block[..out.len()]);
    }
}

/// [`philox4x32_10`] of many counters, word by word: a form that compilers make vectors of. Words
/// are the lower halves of 64 bits, for that is what vectors multiply; what the upper halves hold
/// does not matter.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "lanes of several arrays")]
fn philox_lanes(counter: [[u32; LANES]; 4], mut key: [u32; 2]) -> [[u32; LANES]; 4] {
    const LOWER: u64 = 0xFFFF_FFFF;
    let mut words = [[0u64; LANES]; 4];
    for (words, counter) in words.iter_mut().zip(&counter) {
        for lane in 0..LANES {
            words[lane] = u64::from(counter[lane]);
        }
    }
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let keys = key.map(u64::from);
        for lane in 0..LANES {
            let p0 = (words[0][lane] & LOWER) * 0xD251_1F53;
            let p1 = (words[2][lane] & LOWER) * 0xCD9E_8D57;
            words[0][lane] = (p1 >> 32) ^ words[1][lane] ^ keys[0];
            words[1][lane] = p1;
            words[2][lane] = (p0 >> 32) ^ words[3][lane] ^ keys[1];
            words[3][lane] = p0;
        }
    }
    let mut drawn = [[0u32; LANES]; 4];
    for (drawn, words) in drawn.iter_mut().zip(&words) {
        for lane in 0..LANES {
            drawn[lane] = words[lane] as u32;
        }
    }
    drawn
}

/// The bijection: ten rounds over a 128-bit counter with a 64-bit key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn known_answers() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn many_numbers_are_those_of_single_draws() {
        let stream = Philox::new(0x1234_5678_9abc, Purpose::Write);
        for level in Level::available() {
            let mut all = vec![0.0f64; 64 * 9 + 37];
            let first = u64::from(u32::MAX) * 4 - 4 * 63;
            stream.fill(level, first, 9, &mut all);
            for (k, &u) in all.iter().enumerate() {
                let draw = first / 4 + (k / 64 * 16 + k % 16) as u64;
                assert_eq!(u, (f64::from(stream.words(draw, 9)[k / 16 % 4]) + 0.5) * UNIT);
            }
            let mut tail = vec![0.0f64; 11];
            stream.fill(level, first + 64, 9, &mut tail);
            assert_eq!(tail, all[64..75]);
        }
    }

    #[test]
    fn shuffle_is_a_permutation_that_depends_on_seed_and_group() {
        let order = |seed, group| {
            let mut order = vec![0; 1000];
            Philox::new(seed, Purpose::Shuffle).shuffle(&mut order, group);
            order
        };
        let mut sorted = order(7, 3);
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &v)| i as u64 == v));
        assert_eq!(order(7, 3), order(7, 3));
        assert_ne!(order(7, 3), order(7, 4));
        assert_ne!(order(7, 3), order(8, 3));
    }

    #[test]
    fn moments() {
        let stream = Philox::new(1, Purpose::Probe);
        let n = 200_000;
        let (mut mean, mut square, mut tail, mut flat) = (0.0, 0.0, 0, 0.0);
        for i in 0..n {
            let z = stream.normal(i, 0);
            mean += z;
            square += z * z;
            tail += u32::from(z.abs() > 3.0);
            flat += stream.uniform(i, 1);
        }
        let n = n as f64;
        assert!((mean / n).abs() < 4.0 / n.sqrt());
        assert!((square / n - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        assert!((flat / n - 0.5).abs() < 4.0 / (12.0 * n).sqrt());
        // P(|z| > 3) = .0026998.
        assert!((f64::from(tail) / n - 0.002_699_8).abs() < 4.0 * (0.0027 / n).sqrt());
    }

    #[test]
    fn filled_normals_are_normal_and_do_not_depend_on_where_they_begin() {
        let stream = Philox::new(11, Purpose::Noise);
        let n = 1 << 20;
        for level in Level::available() {
            let mut found = vec![0.0f32; n];
            stream.fill_normal(level, 64, 3, &mut found);
            let moment =
                |p: i32| found.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n as f64;
            let spread = (n as f64).sqrt();
            // The variances of powers of a normal number: E[v^2p] - E[v^p]^2.
            for (p, mean, variance) in
                [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10_170.0)]
            {
                let off = (moment(p) - mean) * spread / f64::sqrt(variance);
                assert!(off.abs() < 4.5, "{} moment {p}: {} deviations", level.name(), off);
            }
            // Beyond 4 deviations: 6.334e-5 of all.
            let tail = found.iter().filter(|v| v.abs() > 4.0).count() as f64;
            let expected = 6.334e-5 * n as f64;
            assert!(
                (tail - expected).abs() < 4.5 * expected.sqrt(),
                "{}: {tail} of {expected}",
                level.name()
            );
            let mut exact = vec![0.0f64; 256];
            stream.fill_normal(level, 0, 3, &mut exact);
            for (j, value) in exact.iter().enumerate().take(64) {
                let words = stream.words((j % 16) as u64, 3);
                let half = j / 32;
                let u = (f64::from(words[2 * half]) + 0.5) * UNIT;
                let angle = std::f64::consts::TAU * UNIT * f64::from(words[2 * half + 1] as i32);
                let turn = if (j / 16).is_multiple_of(2) { angle.cos() } else { angle.sin() };
                let wanted = (-2.0 * u.ln()).sqrt() * turn;
                assert!(
                    (value - wanted).abs() < 1e-6 * wanted.abs().max(1.0),
                    "{j}: {value} {wanted}"
                );
            }
            let mut part = vec![0.0f64; 70];
            stream.fill_normal(level, 64, 3, &mut part);
            assert_eq!(part[..], exact[64..134]);
        }
    }
}
