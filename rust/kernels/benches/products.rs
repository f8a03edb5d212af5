//! Dense products beside those of other crates, on one core: `cargo bench -p pnncore-kernels
//! --bench products`. Rates in GFLOP/s, of the best of several repeats.
//!
//! Shapes are those that layers, updates and reads meet: rows of a batch, inputs and outputs. A
//! turned product reads its left side transposed, as the gradient of a matrix does. All add to what
//! the target holds.
#![allow(clippy::print_stdout, missing_docs)]

use faer::{Accum, MatMut, MatRef, Par};
use pnncore_kernels::bfloat16;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::{Level, Real};
use std::hint::black_box;

mod clock;
use clock::time;

/// A number type that the crates multiply.
trait Number: Real + faer::traits::ComplexField {
    /// `matrixmultiply::sgemm` or `dgemm`, row-major, with the strides of the left side.
    fn matrixmultiply(a: &[Self], strides: [isize; 2], b: &[Self], c: &mut [Self], n: [usize; 3]);
}

macro_rules! number {
    ($T:ident, $gemm:ident) => {
        impl Number for $T {
            fn matrixmultiply(
                a: &[Self],
                [row, column]: [isize; 2],
                b: &[Self],
                c: &mut [Self],
                [m, k, n]: [usize; 3],
            ) {
                let (a, b, c, width) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), n as isize);
                // SAFETY: the slices hold matrices of these shapes.
                unsafe {
                    matrixmultiply::$gemm(
                        m, k, n, 1.0, a, row, column, b, width, 1, 1.0, c, width, 1,
                    );
                }
            }
        }
    };
}
number!(f32, sgemm);
number!(f64, dgemm);

fn compare<T: Number>([m, k, n]: [usize; 3], turned: bool) {
    let number = |i: usize| T::from_f64((i as f64 * 0.37).sin());
    let a: Vec<T> = (0..m * k).map(number).collect();
    let b: Vec<T> = (0..k * n).map(number).collect();
    let mut c = vec![T::ZERO; m * n];
    let (row, column) = if turned { (1, m) } else { (k, 1) };
    let [rs, cs] = [row as isize, column as isize];
    let rate = |seconds: f64| 2.0 * (m * k * n) as f64 / seconds / 1e9;
    let ours = rate(time(|| {
        let (a, b) = (Strided { data: &a, row, column }, Dense { data: &b, stride: n });
        multiply(Level::get(), a, b, (m, k, n), black_box(&mut c), n);
    }));
    let gemm = rate(time(|| {
        let (c, width) = (black_box(c.as_mut_ptr()), n as isize);
        // SAFETY: the slices hold matrices of these shapes.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c,
                1,
                width,
                true,
                a.as_ptr(),
                cs,
                rs,
                b.as_ptr(),
                1,
                width,
                T::ONE,
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }));
    let faer = rate(time(|| {
        let a = if turned {
            MatRef::from_column_major_slice(&a, m, k)
        } else {
            MatRef::from_row_major_slice(&a, m, k)
        };
        let b = MatRef::from_row_major_slice(&b, k, n);
        let c = MatMut::from_row_major_slice_mut(black_box(&mut c), m, n);
        faer::linalg::matmul::matmul(c, Accum::Add, a, b, T::ONE, Par::Seq);
    }));
    let other = rate(time(|| T::matrixmultiply(&a, [rs, cs], &b, black_box(&mut c), [m, k, n])));
    let how = if turned { "turned" } else { "" };
    println!(
        "{:16} {} {how:6} {ours:8.1} {gemm:8.1} {faer:8.1} {other:8.1}",
        format!("{m} x {k} x {n}"),
        <T as Real>::NAME
    );
}

/// Products of numbers rounded to bfloat16, beside those of the numbers as they are.
fn round([m, k, n]: [usize; 3], turned: bool) {
    let number = |i: usize| (i as f32 * 0.37).sin().bfloat16();
    let a: Vec<f32> = (0..m * k).map(number).collect();
    let b: Vec<f32> = (0..k * n).map(number).collect();
    let mut c = vec![0.0; m * n];
    let (row, column) = if turned { (1, m) } else { (k, 1) };
    let (a, b) = (Strided { data: &a, row, column }, Dense { data: &b, stride: n });
    let rate = |seconds: f64| 2.0 * (m * k * n) as f64 / seconds / 1e9;
    let level = Level::get();
    let [whole, rounded] = [multiply, bfloat16::multiply]
        .map(|multiply| rate(time(|| multiply(level, a, b, (m, k, n), black_box(&mut c), n))));
    let how = if turned { "turned" } else { "" };
    let shape = format!("{m} x {k} x {n}");
    println!("{shape:16} bfloat16 {how:6} {rounded:8.1}, in float32 {whole:8.1}");
}

fn main() {
    println!("{:31} {:>8} {:>8} {:>8} {:>8}", "", "pnncore", "gemm", "faer", "matrixm.");
    let rows = [[1, 1024, 1024], [4, 1024, 1024], [8, 784, 512]];
    let layers = [[16, 784, 256], [16, 256, 128], [16, 128, 10], [16, 10, 128], [16, 196, 196]];
    let batches = [[64, 784, 512], [64, 1024, 1024], [256, 1024, 1024], [512, 512, 512]];
    let large = [[16, 1024, 1024], [64, 4096, 4096], [512, 4096, 512]];
    for shape in [&rows[..], &layers, &batches, &large].concat() {
        compare::<f32>(shape, false);
        compare::<f64>(shape, false);
    }
    let updates = [[784, 64, 256], [256, 64, 128], [1024, 64, 1024]];
    for shape in updates {
        compare::<f32>(shape, true);
        compare::<f64>(shape, true);
    }
    for shape in [&layers[..], &batches, &large].concat() {
        round(shape, false);
    }
    for shape in updates {
        round(shape, true);
    }
}
