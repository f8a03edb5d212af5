//! Poisson numbers: how many events come where so many are expected.

use pnncore_kernels::philox::Philox;

/// Random numbers that one Poisson number may take, two to an attempt: the chance that all fail is
/// below 1e-30.
const DRAWS: u64 = 128;

/// From so many on, numbers are drawn as normal ones.
const MANY: f64 = 1e10;

/// The number of events where `mean` are expected, at least zero and finite; number `index` of
/// `group`.
///
/// Few are found by adding up their probabilities, more by transformed rejection with squeeze
/// (Hörmann, Insur. Math. Econ. 12, 39, 1993, algorithm PTRS), very many as normal numbers.
pub(crate) fn poisson(random: &Philox, mean: f64, index: u64, group: u32) -> f64 {
    let draw = |k: u64| random.uniform(index * DRAWS + k, group);
    if mean < 10.0 {
        return few(mean, draw(0));
    }
    if mean > MANY {
        // Skewness is below 1e-5, and logarithms of probabilities would cancel.
        return (mean + mean.sqrt() * random.normal(index * DRAWS, group)).round().max(0.0);
    }
    let b = 0.931 + 2.53 * mean.sqrt();
    let a = -0.059 + 0.02483 * b;
    let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
    let accepted = 0.9277 - 3.6224 / (b - 2.0);
    for attempt in 0..DRAWS / 2 {
        let (u, v) = (draw(2 * attempt) - 0.5, draw(2 * attempt + 1));
        let edge = 0.5 - u.abs();
        let events = ((2.0 * a / edge + b) * u + mean + 0.43).floor();
        if edge >= 0.07 && v <= accepted {
            return events;
        }
        if events < 0.0 || (edge < 0.013 && v > edge) {
            continue;
        }
        let likelihood = events * mean.ln() - mean - libm::lgamma(events + 1.0);
        if (v * inverse_alpha / (a / (edge * edge) + b)).ln() <= likelihood {
            return events;
        }
    }
    mean.round()
}

/// The number whose cumulative probability is the first one above `u`.
fn few(mean: f64, u: f64) -> f64 {
    // Of 10, a hundred events have less probability than a rounding error.
    const MOST: f64 = 100.0;
    let (mut events, mut probability) = (0.0, (-mean).exp());
    let mut sum = probability;
    while u > sum && events < MOST {
        events += 1.0;
        probability *= mean / events;
        sum += probability;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnncore_kernels::philox::Purpose;

    /// Moments of many numbers beside those of the distribution: mean, variance, and third central
    /// moment are all the mean.
    #[test]
    fn moments_are_those_of_the_distribution() {
        const COUNT: u64 = 200_000;
        let random = Philox::new(1, Purpose::Noise);
        for (group, mean) in [0.0, 1e-3, 0.3, 4.0, 9.99, 10.0, 31.0, 1e3, 1e6, 9e9, 1e12, 1e18]
            .into_iter()
            .enumerate()
        {
            let drawn: Vec<f64> =
                (0..COUNT).map(|k| poisson(&random, mean, k, group as u32)).collect();
            let n = COUNT as f64;
            let average = drawn.iter().map(|k| k - mean).sum::<f64>() / n;
            let central =
                |power: i32| drawn.iter().map(|k| (k - mean).powi(power)).sum::<f64>() / n;
            let deviation = f64::sqrt(mean).max(1e-12);
            assert!(average.abs() <= 5.0 * deviation / n.sqrt(), "{mean}: mean");
            let spread = (2.0 * mean * mean + mean).sqrt() / n.sqrt();
            assert!((central(2) - mean).abs() <= 5.0 * spread + 1e-12, "{mean}: variance");
            let skew = (15.0 * mean.powi(3) + 25.0 * mean * mean + mean).sqrt() / n.sqrt();
            assert!((central(3) - mean).abs() <= 5.0 * skew + 1e-12, "{mean}: third moment");
            assert!(drawn.iter().all(|k| *k >= 0.0 && k.fract() == 0.0));
        }
    }

    /// How often each number comes, beside its probability.
    #[test]
    fn numbers_come_as_often_as_they_should() {
        const COUNT: u64 = 100_000;
        let random = Philox::new(2, Purpose::Noise);
        for (group, mean) in [0.7, 6.0, 10.5, 40.0].into_iter().enumerate() {
            let mut found = vec![0.0; 120];
            for k in 0..COUNT {
                found[poisson(&random, mean, k, group as u32) as usize] += 1.0;
            }
            for (events, found) in found.iter().enumerate() {
                let events = events as f64;
                let expected = COUNT as f64
                    * (events * f64::ln(mean) - mean - libm::lgamma(events + 1.0)).exp();
                assert!((found - expected).abs() <= 5.0 * expected.sqrt() + 5.0, "{mean} {events}");
            }
        }
    }
}
