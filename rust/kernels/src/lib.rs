//! SIMD kernels with run-time dispatch, and counter-based random numbers.
//!
//! This is the only crate of the workspace with `unsafe` code. Every public function is safe: it checks the shapes it
//! relies on and picks an instruction set that the processor has. A kernel is written once, over [`simd::Vector`], and
//! instantiated per instruction set; the portable instance is the reference that the others are tested against.
//!
//! Reductions have a fixed order, so that a result depends on the instruction set alone: never on the number of
//! threads, the alignment of a buffer, or how rows are grouped into calls.

pub mod hidden;
pub mod level;
pub mod philox;
pub mod simd;
pub mod sparse;
pub mod unit;

pub use aligned_vec::{AVec, avec};
pub use level::Level;
pub use simd::Real;

/// Transposes `source` (`rows` x `cols`, row-major) into `target` (`cols` rows of `stride >= rows` elements).
///
/// # Panics
/// If a slice is too short for its shape.
pub fn transpose<T: Copy>(source: &[T], rows: usize, cols: usize, target: &mut [T], stride: usize) {
    assert!(source.len() >= rows * cols && stride >= rows && target.len() >= cols * stride);
    // A block of 16 x 16 f32 touches 16 cache lines on either side: both stay in L1 whatever the strides.
    const BLOCK: usize = 16;
    for r0 in (0..rows).step_by(BLOCK) {
        let r1 = (r0 + BLOCK).min(rows);
        for c0 in (0..cols).step_by(BLOCK) {
            for c in c0..(c0 + BLOCK).min(cols) {
                let line = &mut target[c * stride + r0..c * stride + r1];
                for (t, r) in line.iter_mut().zip(r0..) {
                    *t = source[r * cols + c];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn transpose_moves_every_element() {
        for (rows, cols) in [(1, 1), (3, 5), (16, 16), (17, 33), (40, 7)] {
            let source: Vec<usize> = (0..rows * cols).collect();
            let mut target = vec![usize::MAX; cols * (rows + 3)];
            super::transpose(&source, rows, cols, &mut target, rows + 3);
            for r in 0..rows {
                for c in 0..cols {
                    assert_eq!(target[c * (rows + 3) + r], source[r * cols + c]);
                }
            }
        }
    }
}
