//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
//! 1, 2, 3, SC11).
//!
//! A number is a function of what is drawn, never of who draws it: the key is (seed, purpose), the counter says which
//! number. There is no state to save.

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
        let unit = |hi: u32, lo: u32| ((u64::from(hi) << 32 | u64::from(lo)) >> 11) as f64 * (-53f64).exp2();
        // 1 - u is in (0, 1]: the logarithm is finite.
        (-2.0 * (1.0 - unit(a, b)).ln()).sqrt() * (std::f64::consts::TAU * unit(c, d)).cos()
    }

    /// Writes a permutation of `0..order.len()`: Fisher-Yates with the draws of `group`.
    pub fn shuffle(&self, order: &mut [u64], group: u32) {
        for (i, slot) in order.iter_mut().enumerate() {
            *slot = i as u64;
        }
        for i in (1..order.len()).rev() {
            order.swap(i, self.below(i as u64 + 1, i as u64, group) as usize);
        }
    }
}

/// The bijection: ten rounds over a 128-bit counter with a 64-bit key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter =
            [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
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
}
