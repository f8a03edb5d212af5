//! Scratch memory: buffers that are used again, so that steps of training allocate nothing.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use pnncore_kernels::Real;
use pnncore_kernels::sparse::SparseProduct;
use pnncore_kernels::wires::Fields;

/// Buffers that are lent for a while, and come back by themselves.
///
/// One thread at a time uses them. A buffer that is lent again has the capacity that it ever had,
/// so that after some rounds of the same work none grows.
#[derive(Debug)]
pub struct Scratch<T> {
    values: RefCell<Vec<Vec<T>>>,
    indices: RefCell<Vec<Vec<usize>>>,
    products: RefCell<Vec<SparseProduct<T>>>,
    fields: RefCell<Vec<Fields<T>>>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            values: RefCell::default(),
            indices: RefCell::default(),
            products: RefCell::default(),
            fields: RefCell::default(),
        }
    }
}

impl<T: Real> Scratch<T> {
    /// A buffer without elements.
    pub fn empty(&self) -> Lent<'_, Vec<T>> {
        let mut lent = Lent::of(&self.values);
        lent.clear();
        lent
    }

    /// A buffer of so many zeros.
    pub fn zeros(&self, len: usize) -> Lent<'_, Vec<T>> {
        let mut lent = self.empty();
        lent.resize(len, T::ZERO);
        lent
    }

    /// A copy of these numbers.
    pub fn copy(&self, values: &[T]) -> Lent<'_, Vec<T>> {
        let mut lent = self.empty();
        lent.extend_from_slice(values);
        lent
    }

    /// A buffer without elements, for places.
    pub fn indices(&self) -> Lent<'_, Vec<usize>> {
        let mut lent = Lent::of(&self.indices);
        lent.clear();
        lent
    }

    /// What a product that skips zeros takes.
    pub fn product(&self) -> Lent<'_, SparseProduct<T>> {
        Lent::of(&self.products)
    }

    /// What the solver of wires takes.
    pub fn fields(&self) -> Lent<'_, Fields<T>> {
        Lent::of(&self.fields)
    }
}

/// Memory of as many threads as have ever asked for it at the same time.
#[derive(Debug)]
pub struct Pool<M> {
    free: Mutex<Vec<M>>,
}

impl<M> Default for Pool<M> {
    fn default() -> Self {
        Self { free: Mutex::default() }
    }
}

impl<M> Clone for Pool<M> {
    /// What works with a copy has memory of its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<M: Default> Pool<M> {
    /// Runs `work` with memory that no other thread has meanwhile.
    pub fn with<R>(&self, work: impl FnOnce(&mut M) -> R) -> R {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = free().pop().unwrap_or_default();
        let found = work(&mut own);
        free().push(own);
        found
    }
}

/// A buffer of a [`Scratch`].
#[derive(Debug)]
pub struct Lent<'a, B: Default> {
    buffer: B,
    owner: &'a RefCell<Vec<B>>,
}

impl<'a, B: Default> Lent<'a, B> {
    fn of(owner: &'a RefCell<Vec<B>>) -> Self {
        let buffer = owner.borrow_mut().pop().unwrap_or_default();
        Self { buffer, owner }
    }
}

impl<B: Default> Deref for Lent<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.buffer
    }
}

impl<B: Default> DerefMut for Lent<'_, B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.buffer
    }
}

impl<B: Default> Drop for Lent<'_, B> {
    fn drop(&mut self) {
        self.owner.borrow_mut().push(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_with_their_capacity_and_without_their_elements() {
        let scratch = Scratch::<f32>::default();
        let first = {
            let mut both = (scratch.zeros(100), scratch.copy(&[1.0, 2.0]));
            both.1.push(3.0);
            assert_eq!((both.0[99], &both.1[..]), (0.0, &[1.0, 2.0, 3.0][..]));
            both.0[0] = 7.0;
            both.0.as_ptr()
        };
        // What was lent last came back first, and lies on top.
        let (top, below) = (scratch.empty(), scratch.zeros(100));
        assert!(top.is_empty() && below.iter().all(|&value| value == 0.0));
        assert!([top.as_ptr(), below.as_ptr()].contains(&first));
    }
}
