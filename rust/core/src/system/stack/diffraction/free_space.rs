//! Free space between two planes of pixels.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

use num_complex::Complex64;
use pnncore_kernels::Level;
use pnncore_kernels::gemm::{Dense, Strided, multiply};

use crate::settings::{at_least_brief, at_least_one, at_most_brief, positive};
use crate::{Error, Result};

/// Two parallel planes of pixels in free space, one behind the other. Lengths may have any unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreeSpace {
    /// Rows and columns of pixels.
    pub shape: [usize; 2],
    pub distance: f64,
    pub wavelength: f64,
    pub pitch: f64,
}

/// How the field that one pixel sends to all others is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// From the angular spectrum, integrated over all waves that pixels resolve.
    Spectrum,
    /// As the first Rayleigh-Sommerfeld integral has it, where pixels resolve it.
    Impulse,
}

/// Rows of waves that are integrated together.
const TOGETHER: usize = 32;

/// Nearer planes than that, in pitches, do not resolve the field of a pixel.
const NEAREST: f64 = 2.0;

impl FreeSpace {
    /// Refuses planes whose pixels do not resolve the light between them.
    pub(super) fn check(&self) -> Result<()> {
        let Self { shape, distance, wavelength, pitch } = *self;
        at_least_one(&[("shape", shape[0]), ("shape", shape[1])])?;
        for (name, value) in [("distance", distance), ("wavelength", wavelength), ("pitch", pitch)]
        {
            positive(name, value)?;
        }
        self.sampling().map(|_| ())
    }

    /// Pitch and distance in wavelengths.
    fn relative(&self) -> (f64, f64) {
        (self.pitch / self.wavelength, self.distance / self.wavelength)
    }

    /// Waves that pixels resolve are, along each axis, those of up to half a cycle a pixel. Where
    /// pixels are so large that all of these propagate, what they carry is integrated with an error
    /// of rounding, unless planes are so far apart that it oscillates too often. Then, and for
    /// smaller pixels, light from any pixel to any other is such a wave, or the planes are refused.
    pub(super) fn sampling(&self) -> Result<Sampling> {
        let (pitch, distance) = self.relative();
        let pixels = self.shape[0].max(self.shape[1]) as f64;
        if pitch >= FRAC_1_SQRT_2 && self.axial_cycles() <= pixels {
            return Ok(Sampling::Spectrum);
        }
        let refuse = |text: String| Err(Error::Config(text));
        if distance < NEAREST * pitch {
            return refuse(format!(
                "distance must be at least {NEAREST} times the pitch, {}, got {}: nearer planes do \
                 not resolve the field of a pixel",
                at_least_brief(NEAREST * self.pitch),
                self.distance
            ));
        }
        let reach = (pixels - 1.0) * pitch;
        if reach / reach.hypot(distance) <= 0.5 / pitch {
            return Ok(Sampling::Impulse);
        }
        let least = reach * ((2.0 * pitch).powi(2) - 1.0).sqrt() * self.wavelength;
        refuse(format!(
            "pixels {} apart do not resolve light of wavelength {} from one edge of a plane to the \
             other at distance {}: take a distance of at least {}, or a pitch of at most {} or \
             of at least {}",
            self.pitch,
            self.wavelength,
            self.distance,
            at_least_brief(least),
            at_most_brief(0.5 * self.wavelength),
            at_least_brief(FRAC_1_SQRT_2 * self.wavelength)
        ))
    }

    /// How many cycles more a wave along the axis does on its way than the steepest one that pixels
    /// resolve.
    fn axial_cycles(&self) -> f64 {
        let (pitch, distance) = self.relative();
        let steepest = (1.0 - 0.5 / (pitch * pitch)).max(0.0).sqrt();
        distance * (1.0 - steepest)
    }

    /// The field behind, at all distances (rows, columns) from it, of a pixel with a field of one.
    pub(super) fn impulse_response(&self, sampling: Sampling) -> Vec<Complex64> {
        match sampling {
            Sampling::Impulse => self.by_distance(),
            Sampling::Spectrum => self.by_spectrum(),
        }
    }

    /// The same planes, at a distance that differs by so many pitches; no nearer than what pixels
    /// resolve.
    pub(super) fn moved(&self, pitches: f64, sampling: Sampling) -> Self {
        let nearest = match sampling {
            Sampling::Impulse => NEAREST * self.pitch,
            Sampling::Spectrum => 0.0,
        };
        Self { distance: (self.distance + pitches * self.pitch).max(nearest), ..*self }
    }

    /// p^2 z / (2 pi r^2) (1 / r - i k) exp(i k r).
    fn by_distance(&self) -> Vec<Complex64> {
        let (pitch, distance) = self.relative();
        let [n, m] = self.shape;
        let places = (0..n).flat_map(|i| (0..m).map(move |j| (i as f64, j as f64)));
        let field = |(i, j): (f64, f64)| {
            let square = (pitch * i).powi(2) + (pitch * j).powi(2) + distance * distance;
            let r = square.sqrt();
            let size = pitch * pitch * distance / (TAU * square);
            size * Complex64::new(1.0 / r, -TAU) * Complex64::cis(TAU * r.fract())
        };
        places.map(field).collect()
    }

    /// p^2 times the integral of exp(2 pi i z sqrt(1 - u^2 - v^2)) cos(2 pi u y) cos(2 pi v x) over
    /// all u and v of up to 1 / 2 p, by Gauss's rule: the padding has no end.
    fn by_spectrum(&self) -> Vec<Complex64> {
        let (pitch, distance) = self.relative();
        // Half a node a radian, and some to spare.
        let nodes = |pixels: usize| {
            let cycles = self.axial_cycles() + 0.5 * pixels as f64;
            gauss_legendre((3.3 * cycles) as usize + 32)
        };
        let [down, across] = self.shape.map(nodes);
        let [n, m] = self.shape;
        let wave = |u: f64, v: f64| {
            let axial = 1.0 - (u * u + v * v) / (2.0 * pitch).powi(2);
            TAU * (distance * axial.max(0.0).sqrt()).fract()
        };
        let product = |left: Strided<'_, f64>, right: &[f64], sizes, to: &mut [f64]| {
            multiply(Level::get(), left, Dense { data: right, stride: m }, sizes, to, m);
        };
        let (by_row, by_column) = (cosines(&down, n), cosines(&across, m));
        let [re, im] = [f64::cos, f64::sin].map(|part| {
            let (mut inner, mut found) = (vec![0.0; down.len() * m], vec![0.0; n * m]);
            // Some rows of waves after the others: all of them at once would not fit.
            let mut waves = Vec::new();
            for (down, inner) in down.chunks(TOGETHER).zip(inner.chunks_mut(TOGETHER * m)) {
                let places =
                    down.iter().flat_map(|&(u, _)| across.iter().map(move |&(v, _)| (u, v)));
                waves.clear();
                waves.extend(places.map(|(u, v)| part(wave(u, v))));
                let waves = Strided { data: &waves, row: across.len(), column: 1 };
                product(waves, &by_column, (down.len(), across.len(), m), inner);
            }
            let by_row = Strided { data: &by_row, row: 1, column: n };
            product(by_row, &inner, (n, down.len(), m), &mut found);
            found
        });
        re.into_iter().zip(im).map(|(re, im)| Complex64::new(re, im)).collect()
    }
}

/// Cosines of waves at all distances of a plane, node by node, times the nodes' weights.
fn cosines(nodes: &[(f64, f64)], pixels: usize) -> Vec<f64> {
    let along = |&(place, weight): &(f64, f64)| {
        (0..pixels).map(move |k| weight * (PI * place * k as f64).cos())
    };
    nodes.iter().flat_map(along).collect()
}

/// Nodes and weights of Gauss's rule with Legendre's polynomial of a degree, for means from 0 to 1.
fn gauss_legendre(degree: usize) -> Vec<(f64, f64)> {
    /// Newton's steps from Tricomi's guess, which has four digits.
    const STEPS: usize = 4;
    let n = degree as f64;
    let node = |k: usize| {
        let guess = (PI * (k as f64 + 0.75) / (n + 0.5)).cos();
        let mut x = guess * (1.0 - (n - 1.0) / (8.0 * n.powi(3)));
        let mut slope = 1.0;
        for _ in 0..STEPS {
            let (mut before, mut value) = (1.0, x);
            for j in 1..degree {
                let j = j as f64;
                (before, value) = (value, ((2.0 * j + 1.0) * x * value - j * before) / (j + 1.0));
            }
            slope = n * (x * value - before) / (x * x - 1.0);
            x -= value / slope;
        }
        (0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..degree).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauss_integrates_polynomials() {
        for degree in [2, 5, 40, 301] {
            let rule = gauss_legendre(degree);
            for power in [0, 1, 2 * degree as i32 - 1] {
                let found: f64 = rule.iter().map(|(x, w)| w * x.powi(power)).sum();
                let wanted = 1.0 / f64::from(power + 1);
                assert!((found / wanted - 1.0).abs() < 1e-12, "{degree} {power}: {found}");
            }
        }
    }

    fn planes(pixels: usize, distance: f64, pitch: f64) -> FreeSpace {
        FreeSpace { shape: [pixels, pixels + 3], distance, wavelength: 1.0, pitch }
    }

    /// A beam with a waist of w at distance zero, as both angular spectrum and Rayleigh-Sommerfeld
    /// integral must carry it: along the axis, where pixels resolve all of it.
    #[test]
    fn both_kernels_carry_a_smooth_field_alike() {
        for (distance, pitch) in [(30.0, 0.8), (60.0, 0.75)] {
            let space = planes(48, distance, pitch);
            assert_eq!(space.sampling().unwrap(), Sampling::Spectrum);
            let (a, b) = (space.by_spectrum(), space.by_distance());
            let [n, m] = space.shape;
            let waist = |k: usize, count: usize| {
                let x = k as f64 - 0.5 * (count - 1) as f64;
                (-(x / 5.0).powi(2)).exp()
            };
            let at = |kernel: &[Complex64], i: usize, j: usize| -> Complex64 {
                (0..n * m)
                    .map(|from| {
                        let (y, x) = (from / m, from % m);
                        kernel[y.abs_diff(i) * m + x.abs_diff(j)] * waist(y, n) * waist(x, m)
                    })
                    .sum()
            };
            for (i, j) in [(24, 25), (20, 30), (12, 12)] {
                let (a, b) = (at(&a, i, j), at(&b, i, j));
                assert!((a - b).norm() < 1e-6 * a.norm().max(0.1), "{distance} {i} {j}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_integral_has_converged() {
        for space in [planes(20, 15.0, 1.0), planes(17, 400.0, 5.0), planes(9, 1e3, 20.0)] {
            let found = space.by_spectrum();
            // Another rule: of planes with more pixels, at the same distances.
            let larger = FreeSpace { shape: [64, 64], ..space }.by_spectrum();
            let [n, m] = space.shape;
            for at in 0..n * m {
                let other = larger[at / m * 64 + at % m];
                assert!((found[at] - other).norm() < 1e-13, "{space:?} {at}");
            }
        }
    }

    #[test]
    fn what_pixels_do_not_resolve_is_refused_with_what_would_do() {
        let refusal = |space: FreeSpace| match space.check() {
            Err(Error::Config(text)) => text,
            other => panic!("{space:?}: {other:?}"),
        };
        let near = FreeSpace { shape: [100, 100], distance: 5.0, wavelength: 1.0, pitch: 0.6 };
        let text = refusal(near);
        assert!(text.contains("take a distance of at least 39.4"), "{text}");
        let enough = FreeSpace { distance: 39.41, ..near };
        assert!(enough.check().is_ok());
        assert!(FreeSpace { pitch: 0.5, ..near }.check().is_ok());
        assert!(FreeSpace { pitch: 0.708, ..near }.check().is_ok());
        let text = refusal(FreeSpace { distance: 0.9, pitch: 0.5, ..near });
        assert!(
            text.contains("distance must be at least 2 times the pitch, 1.0001, got 0.9"),
            "{text}"
        );
        // Units do not matter.
        let text = refusal(FreeSpace { distance: 5e-6, wavelength: 1e-6, pitch: 6e-7, ..near });
        assert!(text.contains("at least 3.94"), "{text}");
    }

    #[test]
    fn planes_are_resolved_at_all_distances_where_all_waves_propagate() {
        for pitch in [FRAC_1_SQRT_2, 0.8, 1.0, 3.0, 20.0] {
            for distance in (-8..30).map(|k| 2f64.powi(k)) {
                for pixels in [2, 10, 200] {
                    assert!(planes(pixels, distance, pitch).check().is_ok(), "{pitch} {distance}");
                }
            }
        }
    }
}
