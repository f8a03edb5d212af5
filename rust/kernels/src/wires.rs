//! Crossbars with resistive wires: the voltages of all nodes, for as many inputs at once as a
//! vector has lanes.
//!
//! Every cell sits between a node of its row and one of its column. A row goes from its end, at the
//! left, through as many pieces of wire as there are columns; a column begins at the top and goes
//! to its end, at the bottom. The first piece of either has whatever is in series with it. With
//! conductances a of cells, the voltages u of row nodes and v of column nodes obey R u - a v = s
//! and C v - a u = t, with tridiagonal R (along rows) and C (along columns), and s and t the
//! currents that the voltages at the ends feed in.
//!
//! v = C^-1 (a u + t) is put into the first: conjugate gradients solve (R - a C^-1 a) u = s + a
//! C^-1 t, with R as the preconditioner, from what it makes of the right-hand side. Lines are
//! solved exactly, in resistances, by adding up what lies behind a node: the pieces of wire may
//! have none. R itself is never formed: R p follows from residuals as p does from z = R^-1 r. An
//! iteration is three passes over the nodes: about 25 operations and eighteen numbers moved per
//! node.

use crate::level::{Level, dispatch};
use crate::simd::{Real, Vector};

/// Resistances of the pieces of wire, in units of the inverse of that of conductances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pieces<T> {
    /// Between two cells of a row.
    pub row: T,
    /// Between the end of a row and its first cell.
    pub row_end: T,
    /// Between two cells of a column.
    pub column: T,
    /// Between the last cell of a column and its end.
    pub column_end: T,
}

/// A crossbar; arrays are (rows, columns).
#[derive(Debug, Clone, Copy)]
pub struct Network<'a, T> {
    /// Rows and columns.
    pub shape: (usize, usize),
    /// What wires are made of.
    pub pieces: Pieces<T>,
    /// a.
    pub cells: &'a [T],
    /// The part of a current from behind that goes on towards the end of the row: 1 / (1 + r D),
    /// with r the resistance of the next piece and D the conductance of the node and all behind.
    pub rows: &'a [T],
    /// The same along columns.
    pub columns: &'a [T],
}

/// Voltages at all nodes, and memory for the solver: lane by lane for each node.
#[derive(Debug, Clone)]
pub struct Fields<T> {
    /// Voltages of row nodes: (rows, columns, lanes).
    pub u: Vec<T>,
    /// Voltages of column nodes: (rows, columns, lanes).
    pub v: Vec<T>,
    /// Currents out of the ends of the lines that are not driven: (lines, lanes).
    pub out: Vec<T>,
    residual: Vec<T>,
    ahead: Vec<T>,
    along: Vec<T>,
    /// R times `along`.
    image: Vec<T>,
}

impl<T> Default for Fields<T> {
    fn default() -> Self {
        let [u, v, out, residual, ahead, along, image] = std::array::from_fn(|_| Vec::new());
        Self { u, v, out, residual, ahead, along, image }
    }
}

/// The lines that are driven, with the voltages at their ends (lines, lanes); those of the others
/// are grounded.
#[derive(Debug, Clone, Copy)]
pub enum Drive<'a, T> {
    /// The left ends of rows.
    Rows(&'a [T]),
    /// The bottoms of columns.
    Columns(&'a [T]),
}

/// Writes what solving along lines needs.
///
/// # Panics
/// If lengths differ.
pub fn factor<T: Real>(
    (n, m): (usize, usize),
    pieces: Pieces<T>,
    cells: &[T],
    rows: &mut [T],
    columns: &mut [T],
) {
    assert!(cells.len() == n * m && rows.len() == n * m && columns.len() == n * m);
    for i in 0..n {
        let mut behind = T::ZERO;
        for j in (0..m).rev() {
            let own = cells[i * m + j] + behind;
            let next = if j == 0 { pieces.row_end } else { pieces.row };
            rows[i * m + j] = T::ONE / (T::ONE + next * own);
            behind = own * rows[i * m + j];
        }
    }
    for j in 0..m {
        let mut behind = T::ZERO;
        for i in 0..n {
            let own = cells[i * m + j] + behind;
            let next = if i + 1 == n { pieces.column_end } else { pieces.column };
            columns[i * m + j] = T::ONE / (T::ONE + next * own);
            behind = own * columns[i * m + j];
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

/// Solves for all nodes, in at most `most` iterations: until the error, weighted by conductances,
/// is `tolerance` times what is across cells. Returns how many it took; `most` where that was not
/// enough. Without iterations voltages are right to first order in the resistances.
///
/// # Panics
/// If lengths do not fit.
pub fn solve<T: Real>(
    level: Level,
    network: Network<'_, T>,
    drive: Drive<'_, T>,
    tolerance: f64,
    most: u32,
    fields: &mut Fields<T>,
) -> u32 {
    let ((n, m), lanes) = (network.shape, lanes::<T>(level));
    assert!(
        [network.cells, network.rows, network.columns].iter().all(|values| values.len() == n * m)
            && n * m > 0
    );
    let (driven, has, others) = match drive {
        Drive::Rows(voltages) => (n, voltages.len(), m),
        Drive::Columns(voltages) => (m, voltages.len(), n),
    };
    assert_eq!(has, driven * lanes);
    let Fields { u, v, out, residual, ahead, along, image } = fields;
    let fields_of_nodes = [u, v, residual, ahead, along, image].map(|field| (field, n * m));
    for (field, size) in fields_of_nodes.into_iter().chain([(out, others)]) {
        field.clear();
        field.resize(size * lanes, T::ZERO);
    }
    run(level, network, drive, T::from_f64(tolerance), most, fields)
}

dispatch! {
    fn run<T>(
        level: Level, network: Network<'_, T>, drive: Drive<'_, T>, tolerance: T, most: u32,
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

/// Adds up what cells with `p` at their rows feed into columns, from the top down, for row `i`:
/// `v` holds what arrives at every node from behind, for the way up.
#[inline(always)]
fn down<V: Vector>(net: Network<'_, V::Scalar>, i: usize, p: &[V::Scalar], v: &mut [V::Scalar]) {
    let (_, m) = net.shape;
    crate::watch::poll(32 * V::LANES * m);
    for k in i * m..(i + 1) * m {
        // SAFETY: as above.
        unsafe {
            let mut t = splat::<V>(net.cells[k]).mul(get(p, k));
            if i > 0 {
                t = splat::<V>(net.columns[k - m]).mul_add(get(v, k - m), t);
            }
            put(t, v, k);
        }
    }
}

/// The way up, for row `i`; `ends` are the voltages at the bottoms of columns, empty: zero.
#[inline(always)]
fn up<V: Vector>(net: Network<'_, V::Scalar>, i: usize, ends: &[V::Scalar], v: &mut [V::Scalar]) {
    let (n, m) = net.shape;
    let is_last = i + 1 == n;
    let piece = splat::<V>(if is_last { net.pieces.column_end } else { net.pieces.column });
    for k in i * m..(i + 1) * m {
        // SAFETY: as above.
        unsafe {
            let next = match (is_last, ends.is_empty()) {
                (false, _) => get::<V>(v, k + m),
                (true, false) => get(ends, k - i * m),
                (true, true) => splat(Real::ZERO),
            };
            put(piece.mul_add(get(v, k), next).mul(splat(net.columns[k])), v, k);
        }
    }
}

/// Adds up the currents `r` of row `i` towards its end, in `z`; returns what arrives at the first
/// node.
#[inline(always)]
fn towards_end<V: Vector>(
    net: Network<'_, V::Scalar>,
    i: usize,
    r: &[V::Scalar],
    z: &mut [V::Scalar],
) -> V {
    let (_, m) = net.shape;
    let (mut sum, mut part) = (splat::<V>(Real::ZERO), splat::<V>(Real::ZERO));
    for k in (i * m..(i + 1) * m).rev() {
        // SAFETY: as above.
        unsafe {
            sum = part.mul_add(sum, get(r, k));
            put(sum, z, k);
            part = splat(net.rows[k]);
        }
    }
    sum
}

/// Makes voltages of what [`towards_end`] has added up; `end` is that of the end.
#[inline(always)]
fn from_end<V: Vector>(net: Network<'_, V::Scalar>, i: usize, end: V, z: &mut [V::Scalar]) {
    let (_, m) = net.shape;
    let (mut before, mut piece) = (end, splat::<V>(net.pieces.row_end));
    for k in i * m..(i + 1) * m {
        // SAFETY: as above.
        unsafe {
            before = piece.mul_add(get(z, k), before).mul(splat(net.rows[k]));
            put(before, z, k);
        }
        piece = splat(net.pieces.row);
    }
}

/// Writes a v for row `i`: what columns feed into it.
#[inline(always)]
fn feed<V: Vector>(net: Network<'_, V::Scalar>, i: usize, v: &[V::Scalar], r: &mut [V::Scalar]) {
    let (_, m) = net.shape;
    // SAFETY: as above.
    (i * m..(i + 1) * m)
        .for_each(|k| unsafe { put(splat::<V>(net.cells[k]).mul(get(v, k)), r, k) });
}

/// Solves R z = r for row `i`, and returns r z.
#[inline(always)]
fn precondition<V: Vector>(
    net: Network<'_, V::Scalar>,
    i: usize,
    r: &[V::Scalar],
    z: &mut [V::Scalar],
) -> V {
    let (_, m) = net.shape;
    let zero = splat::<V>(Real::ZERO);
    towards_end::<V>(net, i, r, z);
    from_end(net, i, zero, z);
    // SAFETY: as above.
    (i * m..(i + 1) * m).fold(zero, |sum, k| unsafe { get::<V>(r, k).mul_add(get(z, k), sum) })
}

/// Begins with u = R^-1 (s + a C^-1 t) and v = C^-1 t, and returns what is across cells, squared
/// and weighted by conductances.
#[inline(always)]
fn begin<V: Vector>(
    net: Network<'_, V::Scalar>,
    drive: Drive<'_, V::Scalar>,
    fields: &mut Fields<V::Scalar>,
) -> V {
    let Fields { u, v, out, residual: r, .. } = fields;
    let (n, m) = net.shape;
    let zero = splat::<V>(Real::ZERO);
    let mut power = zero;
    // SAFETY: as above.
    unsafe {
        for i in (0..n).rev() {
            if let Drive::Columns(ends) = drive {
                up::<V>(net, i, ends, v);
                feed::<V>(net, i, v, r);
            }
            let arrived = towards_end::<V>(net, i, r, u);
            match drive {
                Drive::Rows(ends) => from_end::<V>(net, i, get(ends, i), u),
                Drive::Columns(_) => {
                    put(arrived.mul(splat(net.rows[i * m])), out, i);
                    from_end(net, i, zero, u);
                }
            }
            for k in i * m..(i + 1) * m {
                let across = get::<V>(u, k).sub(get(v, k));
                power = splat::<V>(net.cells[k]).mul(across).mul_add(across, power);
            }
        }
    }
    power
}

/// Writes the residual a C^-1 a u that [`begin`] leaves, and z for it; returns r z.
#[inline(always)]
fn first_residual<V: Vector>(net: Network<'_, V::Scalar>, fields: &mut Fields<V::Scalar>) -> V {
    let Fields { u, v, residual: r, ahead: z, .. } = fields;
    let (n, _) = net.shape;
    let mut rz = splat::<V>(Real::ZERO);
    (0..n).for_each(|i| down::<V>(net, i, u, v));
    for i in (0..n).rev() {
        up::<V>(net, i, &[], v);
        feed::<V>(net, i, v, r);
        // SAFETY: as above.
        rz = unsafe { rz.add(precondition::<V>(net, i, r, z)) };
    }
    rz
}

/// Turns to the next direction p = z + `keep` p, with its image, and returns the product of p and
/// what the matrix makes of it, R p - a C^-1 a p: columns hold C^-1 a p.
#[inline(always)]
fn turn<V: Vector>(net: Network<'_, V::Scalar>, keep: V, fields: &mut Fields<V::Scalar>) -> V {
    let Fields { v, residual: r, ahead: z, along: p, image, .. } = fields;
    let (n, m) = net.shape;
    let mut product = splat::<V>(Real::ZERO);
    // SAFETY: as above.
    unsafe {
        for i in 0..n {
            for k in i * m..(i + 1) * m {
                put(keep.mul_add(get(p, k), get(z, k)), p, k);
                put(keep.mul_add(get(image, k), get(r, k)), image, k);
            }
            down::<V>(net, i, p, v);
        }
        for i in (0..n).rev() {
            up::<V>(net, i, &[], v);
            for k in i * m..(i + 1) * m {
                let there = splat::<V>(net.cells[k]).mul(get(v, k));
                product = get::<V>(p, k).mul_add(get::<V>(image, k).sub(there), product);
            }
        }
    }
    product
}

/// Goes along the direction, and returns r z of what is left.
#[inline(always)]
fn go<V: Vector>(net: Network<'_, V::Scalar>, step: V, fields: &mut Fields<V::Scalar>) -> V {
    let Fields { u, v, residual: r, ahead: z, along: p, image, .. } = fields;
    let (n, m) = net.shape;
    let zero = splat::<V>(Real::ZERO);
    let mut rz = zero;
    // SAFETY: as above.
    unsafe {
        for i in 0..n {
            for k in i * m..(i + 1) * m {
                put(step.mul_add(get(p, k), get(u, k)), u, k);
                let made = get::<V>(image, k).sub(splat::<V>(net.cells[k]).mul(get(v, k)));
                put(zero.sub(step).mul_add(made, get(r, k)), r, k);
            }
            rz = rz.add(precondition::<V>(net, i, r, z));
        }
    }
    rz
}

/// Writes the voltages of columns and the currents out of ends.
#[inline(always)]
fn end<V: Vector>(
    net: Network<'_, V::Scalar>,
    drive: Drive<'_, V::Scalar>,
    is_exact: bool,
    fields: &mut Fields<V::Scalar>,
) {
    let Fields { u, v, out, .. } = fields;
    let (n, m) = net.shape;
    let ends = match drive {
        Drive::Rows(_) => &[][..],
        Drive::Columns(ends) => ends,
    };
    (0..n).for_each(|i| down::<V>(net, i, u, v));
    // SAFETY: as above.
    unsafe {
        if let Drive::Rows(_) = drive {
            for (j, k) in ((n - 1) * m..n * m).enumerate() {
                put(get::<V>(v, k).mul(splat(net.columns[k])), out, j);
            }
        }
        for i in (0..n).rev() {
            up::<V>(net, i, ends, v);
            if !is_exact || matches!(drive, Drive::Rows(_)) {
                continue;
            }
            // What flows out of a row flows in through its cells. Where its end lets little of that
            // through, the sum would be one of large terms, and the voltage at the end tells.
            let (two, first) = (V::Scalar::ONE + Real::ONE, i * m);
            let current = if two * net.rows[first] < Real::ONE {
                get::<V>(u, first).div(splat(net.pieces.row_end))
            } else {
                (first..first + m).fold(splat::<V>(Real::ZERO), |sum, k| {
                    splat::<V>(net.cells[k]).mul_add(get::<V>(v, k).sub(get(u, k)), sum)
                })
            };
            put(current, out, i);
        }
    }
}

#[inline(always)]
fn run_body<V: Vector>(
    net: Network<'_, V::Scalar>,
    drive: Drive<'_, V::Scalar>,
    tolerance: V::Scalar,
    most: u32,
    fields: &mut Fields<V::Scalar>,
) -> u32 {
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    let power = begin::<V>(net, drive, fields);
    let mut made = 0;
    // SAFETY: as above, for the whole block.
    unsafe {
        let goal = power.mul(splat(tolerance * tolerance));
        let mut rz = if most > 0 { first_residual::<V>(net, fields) } else { zero };
        let mut keep = zero;
        // NaN is never at its goal.
        while made < most && one.sub(goal.step(rz)).any() {
            made += 1;
            let product = turn::<V>(net, keep, fields);
            // Lanes without inputs have nothing to do.
            let idle = zero.step(product);
            let step = rz.div(product.add(idle)).mul(one.sub(idle));
            let before = rz;
            rz = go::<V>(net, step, fields);
            let idle = zero.step(before);
            keep = rz.div(before.add(idle)).mul(one.sub(idle));
        }
    }
    end::<V>(net, drive, most > 0, fields);
    made
}
