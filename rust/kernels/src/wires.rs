//! Crossbars with resistive wires: the voltages of all nodes, for as many inputs at once as a
//! vector has lanes.
//!
//! Every cell sits between a node of its row and one of its column. A row goes from its source, at
//! the left, through as many pieces of wire as there are columns, and ends; a column begins at the
//! top and goes to its ground, at the bottom. With conductances in units of that of a piece of
//! wire, a, the voltages u of row nodes and v of column nodes obey R u - a v = s and C v - a u = t,
//! with tridiagonal R (along rows) and C (along columns), and s and t the voltages at the ends.
//!
//! v = C^-1 (a u + t) is put into the first: conjugate gradients solve (R - a C^-1 a) u = s + a
//! C^-1 t, with R as the preconditioner. Both are solved exactly along lines. An iteration is three
//! passes over the nodes: about 25 operations and eleven numbers moved per node.

use crate::level::{Level, dispatch};
use crate::simd::{Real, Vector};

/// A crossbar: conductances in units of that of a piece of wire, and the pivots of both tridiagonal
/// systems, inverted; all (rows, columns).
#[derive(Debug, Clone, Copy)]
pub struct Network<'a, T> {
    /// Rows and columns.
    pub shape: (usize, usize),
    /// a.
    pub cells: &'a [T],
    /// Pivots along rows.
    pub rows: &'a [T],
    /// Pivots along columns.
    pub columns: &'a [T],
}

/// Voltages at all nodes, and memory for the solver: lane by lane for each node.
#[derive(Debug, Clone)]
pub struct Fields<T> {
    /// Voltages of row nodes: (rows, columns, lanes).
    pub u: Vec<T>,
    /// Voltages of column nodes: (rows, columns, lanes).
    pub v: Vec<T>,
    residual: Vec<T>,
    ahead: Vec<T>,
    along: Vec<T>,
    image: Vec<T>,
}

impl<T> Default for Fields<T> {
    fn default() -> Self {
        let [u, v, residual, ahead, along, image] = std::array::from_fn(|_| Vec::new());
        Self { u, v, residual, ahead, along, image }
    }
}

/// Voltages at the ends of lines: (lines, lanes) each; empty: zero.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a, T> {
    /// At the left ends of rows.
    pub rows: &'a [T],
    /// At the bottoms of columns.
    pub columns: &'a [T],
}

/// Writes the inverted pivots of both tridiagonal systems.
///
/// # Panics
/// If lengths differ.
pub fn factor<T: Real>((n, m): (usize, usize), cells: &[T], rows: &mut [T], columns: &mut [T]) {
    assert!(cells.len() == n * m && rows.len() == n * m && columns.len() == n * m);
    for i in 0..n {
        for j in 0..m {
            let k = i * m + j;
            // A piece of wire to the left always, one to the right unless the row ends.
            let right = if j + 1 < m { T::ONE } else { T::ZERO };
            let before = if j > 0 { rows[k - 1] } else { T::ZERO };
            rows[k] = T::ONE / (cells[k] + T::ONE + right - before);
            // One below always, one above unless the column begins.
            let (above, before) = if i > 0 { (T::ONE, columns[k - m]) } else { (T::ZERO, T::ZERO) };
            columns[k] = T::ONE / (cells[k] + T::ONE + above - before);
        }
    }
}

dispatch! {
    /// How many inputs are solved at once.
    pub fn lanes<T>(level: Level,) -> usize = lanes_body
}

#[inline(always)]
fn lanes_body<V: Vector>() -> usize {
    V::LANES
}

/// Solves for all nodes, to a preconditioned residual of `tolerance` times that of no voltages, in
/// at most `most` iterations. Returns how many it took; `most` where that was not enough. Without
/// iterations, u is that of grounded columns: right to first order in a.
///
/// # Panics
/// If lengths do not fit.
pub fn solve<T: Real>(
    level: Level,
    network: Network<'_, T>,
    ends: Ends<'_, T>,
    tolerance: f64,
    most: u32,
    fields: &mut Fields<T>,
) -> u32 {
    let ((n, m), lanes) = (network.shape, lanes::<T>(level));
    assert!(
        [network.cells, network.rows, network.columns].iter().all(|values| values.len() == n * m)
            && n * m > 0
    );
    assert!(
        [0, n * lanes].contains(&ends.rows.len()) && [0, m * lanes].contains(&ends.columns.len())
    );
    let Fields { u, v, residual, ahead, along, image } = fields;
    for field in [u, v, residual, ahead, along, image] {
        field.clear();
        field.resize(n * m * lanes, T::ZERO);
    }
    run(level, network, ends, T::from_f64(tolerance), most, fields)
}

dispatch! {
    fn run<T>(
        level: Level, network: Network<'_, T>, ends: Ends<'_, T>, tolerance: T, most: u32,
        fields: &mut Fields<T>,
    ) -> u32
        = run_body
}

/// Lanes of node `k`.
#[inline(always)]
fn get<V: Vector>(field: &[V::Scalar], k: usize) -> V {
    let lanes = &field[k * V::LANES..(k + 1) * V::LANES];
    // SAFETY: the lanes are there; `dispatch!` vouches for the instruction set, here and below.
    unsafe { V::load(lanes.as_ptr()) }
}

#[inline(always)]
fn put<V: Vector>(value: V, field: &mut [V::Scalar], k: usize) {
    let lanes = &mut field[k * V::LANES..(k + 1) * V::LANES];
    // SAFETY: as above.
    unsafe { value.store(lanes.as_mut_ptr()) }
}

#[inline(always)]
fn splat<V: Vector>(x: V::Scalar) -> V {
    // SAFETY: as above.
    unsafe { V::splat(x) }
}

/// Solves C v = a p + t from the top down, with p = `ahead` + `keep` p where `keep` is given:
/// `fields.v` holds what is left for the way up.
#[inline(always)]
fn down<V: Vector>(
    net: Network<'_, V::Scalar>,
    ends: &[V::Scalar],
    p: &[V::Scalar],
    v: &mut [V::Scalar],
) {
    let (n, m) = net.shape;
    for i in 0..n {
        crate::watch::poll(32 * V::LANES * m);
        for j in 0..m {
            let k = i * m + j;
            // SAFETY: as above.
            unsafe {
                let mut t = splat::<V>(net.cells[k]).mul(get(p, k));
                if i > 0 {
                    t = splat::<V>(net.columns[k - m]).mul_add(get(v, k - m), t);
                }
                if i + 1 == n && !ends.is_empty() {
                    t = t.add(get(ends, j));
                }
                put(t, v, k);
            }
        }
    }
}

/// The way up, for row `i`.
#[inline(always)]
fn up<V: Vector>(net: Network<'_, V::Scalar>, i: usize, v: &mut [V::Scalar]) {
    let (n, m) = net.shape;
    for k in i * m..(i + 1) * m {
        // SAFETY: as above.
        unsafe {
            let mut t = get::<V>(v, k);
            if i + 1 < n {
                t = t.add(get(v, k + m));
            }
            put(t.mul(splat(net.columns[k])), v, k);
        }
    }
}

/// Solves R z = r for row `i`, and returns r z.
#[inline(always)]
fn along_row<V: Vector>(
    net: Network<'_, V::Scalar>,
    i: usize,
    r: &[V::Scalar],
    z: &mut [V::Scalar],
) -> V {
    let (_, m) = net.shape;
    let (mut t, mut sum) = (splat::<V>(Real::ZERO), splat::<V>(Real::ZERO));
    // SAFETY: as above.
    unsafe {
        for k in i * m..(i + 1) * m {
            let before = if k > i * m { net.rows[k - 1] } else { Real::ZERO };
            t = splat::<V>(before).mul_add(t, get(r, k));
            put(t, z, k);
        }
        t = splat(Real::ZERO);
        for k in (i * m..(i + 1) * m).rev() {
            t = splat::<V>(net.rows[k]).mul(get::<V>(z, k).add(t));
            put(t, z, k);
            sum = t.mul_add(get(r, k), sum);
        }
    }
    sum
}

/// Writes the image of a direction `p`, whose columns `v` are being solved for, and returns the
/// product of the two.
#[inline(always)]
fn image_of<V: Vector>(
    net: Network<'_, V::Scalar>,
    p: &[V::Scalar],
    v: &mut [V::Scalar],
    q: &mut [V::Scalar],
) -> V {
    let (n, m) = net.shape;
    let zero = splat::<V>(Real::ZERO);
    let mut pq = zero;
    // SAFETY: as above.
    unsafe {
        for i in (0..n).rev() {
            up::<V>(net, i, v);
            for j in 0..m {
                let k = i * m + j;
                let here = get::<V>(p, k);
                let right = if j + 1 < m { get::<V>(p, k + 1) } else { here };
                let left = if j > 0 { get::<V>(p, k - 1) } else { zero };
                // a (p - v) + (p - left) + (p - right).
                let across = splat::<V>(net.cells[k]).mul(here.sub(get(v, k)));
                let image = across.add(here.sub(left)).add(here.sub(right));
                pq = here.mul_add(image, pq);
                put(image, q, k);
            }
        }
    }
    pq
}

/// Writes the residual r = s + a C^-1 t of the sources, and z for it; returns r z.
#[inline(always)]
fn begin<V: Vector>(
    net: Network<'_, V::Scalar>,
    ends: Ends<'_, V::Scalar>,
    p: &[V::Scalar],
    v: &mut [V::Scalar],
    r: &mut [V::Scalar],
    z: &mut [V::Scalar],
) -> V {
    let (n, m) = net.shape;
    let mut rz = splat::<V>(Real::ZERO);
    // SAFETY: as above.
    unsafe {
        if !ends.columns.is_empty() {
            down::<V>(net, ends.columns, p, v);
            for i in (0..n).rev() {
                up::<V>(net, i, v);
                for k in i * m..(i + 1) * m {
                    put(splat::<V>(net.cells[k]).mul(get(v, k)), r, k);
                }
            }
        }
        for i in 0..n {
            if !ends.rows.is_empty() {
                put(get::<V>(r, i * m).add(get(ends.rows, i)), r, i * m);
            }
            rz = rz.add(along_row::<V>(net, i, r, z));
        }
    }
    rz
}

#[inline(always)]
fn run_body<V: Vector>(
    net: Network<'_, V::Scalar>,
    ends: Ends<'_, V::Scalar>,
    tolerance: V::Scalar,
    most: u32,
    fields: &mut Fields<V::Scalar>,
) -> u32 {
    let Fields { u, v, residual: r, ahead: z, along: p, image: q } = fields;
    let (n, m) = net.shape;
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    // SAFETY: as above, for the whole function.
    unsafe {
        let mut rz = begin::<V>(net, ends, p, v, r, z);
        let goal = rz.mul(splat(tolerance * tolerance));
        let mut made = 0;
        if most == 0 {
            u.copy_from_slice(z);
        }
        let mut keep = zero;
        while made < most {
            made += 1;
            for k in 0..n * m {
                put(keep.mul_add(get(p, k), get(z, k)), p, k);
            }
            down::<V>(net, &[], p, v);
            let pq = image_of::<V>(net, p, v, q);
            // Lanes without inputs have nothing to do.
            let idle = zero.step(pq);
            let step = rz.div(pq.add(idle)).mul(one.sub(idle));
            let before = rz;
            rz = zero;
            for i in 0..n {
                for k in i * m..(i + 1) * m {
                    put(step.mul_add(get(p, k), get(u, k)), u, k);
                    put(zero.sub(step).mul_add(get(q, k), get(r, k)), r, k);
                }
                rz = rz.add(along_row::<V>(net, i, r, z));
            }
            // NaN is never at its goal.
            if !one.sub(goal.step(rz)).any() {
                break;
            }
            let idle = zero.step(before);
            keep = rz.div(before.add(idle)).mul(one.sub(idle));
        }
        down::<V>(net, ends.columns, u, v);
        for i in (0..n).rev() {
            up::<V>(net, i, v);
        }
        made
    }
}
