//! Trains of pulses, drawn.

use super::{GROUP, MOST_SLOTS, SIGN};
use crate::level::{Level, dispatch};
use crate::philox::{LANES, Philox, block_of_words};
use crate::simd::{Real, Vector};

/// Writes trains of `slots` bits for values (samples, width): each bit is one with the probability |value| times `scale` of the
/// sample, and the highest bit is the sign. They are ordered by blocks of [`GROUP`] values (the last filled with zeros), and within
/// these by sample.
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
    assert!(values.len() == samples * width && slots.len() == samples && slots.iter().all(|&n| n <= MOST_SLOTS));
    out.clear();
    out.resize(width.div_ceil(GROUP) * GROUP * samples, 0);
    draw_trains(level, values, width, slots, scales, random, group, out);
}

dispatch! {
    fn draw_trains<T>(
        level: Level, values: &[T], width: usize, slots: &[u32], scales: &[f64], random: Philox, group: u32, out: &mut [u32],
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
    for g in 0..groups {
        for s in 0..samples {
            let all = &values[s * width..(s + 1) * width];
            let own = &all[g * GROUP..(g * GROUP + GROUP).min(width)];
            let mut bounds = [0u64; GROUP];
            let mut signs = [0u32; GROUP];
            for (i, value) in own.iter().enumerate() {
                let value = value.to_f64();
                bounds[i] = (value.abs() * scales[s] * 4_294_967_296.0) as u64;
                signs[i] = if value < 0.0 { SIGN } else { 0 };
            }
            if bounds == [0; GROUP] {
                continue;
            }
            let mut masks = [0u32; GROUP];
            let first = ((s * groups + g) * 8) as u64 * LANES as u64;
            // A draw has words for four slots.
            for slot in (0..slots[s]).step_by(4) {
                let words = block_of_words(first + u64::from(slot / 4) * LANES as u64, counter, key);
                for (k, words) in (slot..slots[s]).zip(&words) {
                    for i in 0..GROUP {
                        masks[i] |= u32::from(u64::from(words[i]) < bounds[i]) << k;
                    }
                }
            }
            let out = &mut out[(g * samples + s) * GROUP..][..GROUP];
            for i in 0..GROUP {
                out[i] = masks[i] | signs[i];
            }
        }
    }
}
