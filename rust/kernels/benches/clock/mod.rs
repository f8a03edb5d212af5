//! How long a call takes.

use std::time::Instant;

/// Best seconds per call.
pub(crate) fn time(mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut calls = 1;
    for _ in 0..15 {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        let elapsed = start.elapsed().as_secs_f64();
        best = best.min(elapsed / calls as f64);
        if elapsed < 0.01 {
            calls *= 4;
        }
    }
    best
}
