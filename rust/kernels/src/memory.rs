//! Memory of kernels, which is kept between calls.

use std::cell::RefCell;

use crate::simd::Real;

thread_local! {
    static FREE: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

/// Does `work` with so many zeros.
pub(crate) fn with_zeros<T: Real>(count: usize, work: impl FnOnce(&mut [T])) {
    let mut memory = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    memory.clear();
    memory.resize((count * size_of::<T>()).div_ceil(size_of::<u64>()), 0);
    // SAFETY: all bits of f32 and f64 are numbers, and neither needs more than a u64's alignment.
    let zeros = unsafe { memory.align_to_mut::<T>().1 };
    work(&mut zeros[..count]);
    FREE.with_borrow_mut(|free| free.push(memory));
}
