//! Trains of pulses, drawn.

use super::{GROUP, MOST_SLOTS, SIGN};
use crate::level::{Level, dispatch};
use crate::philox::{LANES, Philox, block_of_words};
use crate::simd::{Real, Vector};

/// Draws that a sample may take, in whole blocks.
const DRAWS_OF_SAMPLE: u64 = 1 << 32;

/// Writes trains of `slots` bits for values (samples, width): each bit is one with the probability
/// |value| times `scale` of the sample, and the highest bit is the sign. They are ordered by blocks
/// of [`GROUP`] values (the last filled with zeros), and within these by sample.
///
/// # Panics
/// If the lengths do not fit, or there are more than [`MOST_SLOTS`] slots.
pub fn trains<T: Real>(
    level: Level,
    values: &[T],
    (width, slots): (usize, &[u32]),
    scales: &[f64],
    (random, group): (Philox, u32),
    out: &mut Vec<u32>,
) {
    let samples = scales.len();
    assert!(
        values.len() == samples * width
            && slots.len() == samples
            && slots.iter().all(|&n| n <= MOST_SLOTS)
    );
    out.clear();
    out.resize(width.div_ceil(GROUP) * GROUP * samples, 0);
    draw_trains(level, values, width, slots, scales, random, group, out);
}

dispatch! {
    fn draw_trains<T>(
        level: Level, values: &[T], width: usize, slots: &[u32], scales: &[f64], random: Philox,
        group: u32, out: &mut [u32],
    ) = draw_trains_body
}

#[inline(always)]
fn draw_trains_body<V: Vector>(
    values: &[V::Scalar],
    width: usize,
    slots: &[u32],
    scales: &[f64],
    random: Philox,
    group: u32,
    out: &mut [u32],
) {
    let (samples, groups) = (scales.len(), width.div_ceil(GROUP));
    let (counter, key) = random.stream(group);
    for (s, (values, &slots)) in values.chunks_exact(width).zip(slots).enumerate() {
        let scale = V::Scalar::from_f64(scales[s] * 4_294_967_296.0);
        // Groups take the words of a sample one after the other, a word per slot; a draw has four.
        let first = s as u64 * DRAWS_OF_SAMPLE;
        let (mut words, mut drawn) = ([[0u32; GROUP]; 4], u64::MAX);
        for g in 0..groups {
            let mut own = [Real::ZERO; GROUP];
            let there = &values[g * GROUP..(g * GROUP + GROUP).min(width)];
            own[..there.len()].copy_from_slice(there);
            // Beyond the range of integers, which is certain, casts give the largest one.
            let mut bounds = [0; GROUP];
            for i in (0..GROUP).step_by(V::LANES) {
                // SAFETY: GROUP is a multiple of V::LANES; `dispatch!` vouches for the instruction
                // set.
                unsafe {
                    let size = V::splat(Real::ZERO).max_magnitude(V::load(own[i..].as_ptr()));
                    size.mul(V::splat(scale)).cut(bounds[i..].as_mut_ptr());
                }
            }
            if bounds == [0; GROUP] {
                continue;
            }
            let mut masks = [0u32; GROUP];
            for k in 0..slots {
                let word = g as u64 * u64::from(slots) + u64::from(k);
                if word / 4 != drawn {
                    drawn = word / 4;
                    words = block_of_words(first + drawn * LANES as u64, counter, key);
                }
                let words = &words[(word % 4) as usize];
                for i in 0..GROUP {
                    masks[i] |= u32::from(words[i] < bounds[i] || bounds[i] == u32::MAX) << k;
                }
            }
            let out = &mut out[(g * samples + s) * GROUP..][..GROUP];
            for i in 0..GROUP {
                out[i] = masks[i] | if own[i] < Real::ZERO { SIGN } else { 0 };
            }
        }
    }
}
