//! Products that take longer than anybody waits end in their middle when they are no longer wanted.
#![allow(missing_docs)]

use pnncore_kernels::Level;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::sparse::{Panel, SparseRows, accumulate};
use pnncore_kernels::watch::over;

const ROWS: usize = 768;
const INNER: usize = 2048;
const COLS: usize = 2048;

/// Whether the product has come to its last element.
fn is_done(product: &[f32]) -> bool {
    product.last().is_some_and(|&last| last != 0.0)
}

#[test]
fn products_of_lists_end_in_their_middle() {
    let level = Level::get();
    let row: Vec<f32> = (0..INNER).map(|k| 1.0 + k as f32).collect();
    let mut lists = SparseRows::new(INNER);
    (0..ROWS).for_each(|_| lists.push(level, &row));
    let matrix = vec![1.0; INNER * COLS];
    let mut product = vec![0.0; ROWS * COLS];
    let mut panel = Panel::default();
    let mut make = |product: &mut [f32]| {
        let m = Dense { data: &matrix, stride: COLS };
        accumulate(level, &lists, 0, ROWS, m, COLS, product, COLS, &mut panel);
    };
    assert!(over(|| true, || make(&mut product)).is_err());
    assert!(!is_done(&product));
    assert!(over(|| false, || make(&mut product)).is_ok());
    assert!(is_done(&product));
}

#[test]
fn dense_products_end_in_their_middle() {
    let level = Level::get();
    let (a, b) = (vec![1.0; ROWS * INNER], vec![1.0; INNER * COLS]);
    let mut product = vec![0.0; ROWS * COLS];
    let make = |product: &mut [f32]| {
        let (a, b) =
            (Strided { data: &a, row: INNER, column: 1 }, Dense { data: &b, stride: COLS });
        multiply(level, a, b, (ROWS, INNER, COLS), product, COLS);
    };
    assert!(over(|| true, || make(&mut product)).is_err());
    assert!(!is_done(&product));
    assert!(over(|| false, || make(&mut product)).is_ok());
    assert!(is_done(&product));
}
