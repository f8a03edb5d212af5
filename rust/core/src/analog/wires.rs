//! Wires of crossbars: weights as pairs of conductances, between rows and columns that have a
//! resistance.

use pnncore_kernels::watch::poll;
use pnncore_kernels::wires::{Drive, Fields, Network, Pieces, factor, lanes, solve};
use pnncore_kernels::{Level, Real, dot};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::runtime::Runtime;
use crate::scratch::{Lent, Scratch};
use crate::settings::positive;
use crate::{Error, Result};

/// The resistances of what lines are made of, in ohms; zero is an ideal wire. Drivers sit at rows
/// and sense amplifiers at columns, whichever of them are driven: a transposed read uses the same
/// ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resistances {
    /// Of a piece of wire between two cells of a row.
    pub row: f64,
    /// Of a piece between two cells of a column.
    pub column: f64,
    /// In series with the first piece of a row.
    pub driver: f64,
    /// In series with the last piece of a column.
    pub sense: f64,
}

impl Resistances {
    /// Checks that none is negative, and that they let through enough of what the most conductive
    /// cell does: they are at most so many times its resistance.
    ///
    /// # Errors
    /// [`Error::Config`], naming the resistance.
    fn check(&self, conductance: f64, most: f64) -> Result<()> {
        let Self { row, column, driver, sense } = *self;
        for (name, ohms) in [("row", row), ("column", column), ("driver", driver), ("sense", sense)]
        {
            if !(ohms >= 0.0 && ohms.is_finite()) {
                return Err(Error::Config(format!(
                    "{name}_resistance must be a number of at least 0, got {ohms}"
                )));
            }
            if ohms * conductance > most {
                return Err(Error::Config(format!(
                    "{name}_resistance must be at most {most:e} times the resistance of the most \
                     conductive cell, {:.3e} ohms, got {ohms:e}",
                    1.0 / conductance
                )));
            }
        }
        Ok(())
    }

    /// The same in units of the inverse of a conductance.
    fn pieces<T: Real>(&self, unit: f64) -> Pieces<T> {
        let Self { row, column, driver, sense } = *self;
        let [row, row_end, column, column_end] =
            [row, row + driver, column, column + sense].map(|ohms| T::from_f64(ohms * unit));
        Pieces { row, row_end, column, column_end }
    }
}

/// What weights are in conductances, and what is between them. A weight w is the difference of two
/// arrays: off + (on - off) |w| / weight in the one of its sign, off in the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wires {
    /// What lines are made of.
    pub resistances: Resistances,
    /// The largest conductance, in siemens.
    pub on: f64,
    /// The smallest one.
    pub off: f64,
    /// The weight that is the largest conductance: larger ones are cut; `None`: the largest weight
    /// that there is.
    pub weight: Option<f64>,
    /// Whether the nodal equations are solved to the tolerance, or to first order in the
    /// resistances.
    pub exact: bool,
    /// Of the error of voltages, relative to those across cells.
    pub tolerance: f64,
}

/// The most iterations: several times what wires take that let nothing through.
const MOST: u32 = 500;
/// The same for arrays by themselves, which may be worse.
const MOST_ALONE: u32 = 10_000;
/// The largest resistance of a piece of wire, in units of that of the most conductive cell, that
/// iterations are enough for; and for arrays by themselves.
const MOST_RESISTIVE: f64 = 100.0;
const MOST_RESISTIVE_ALONE: f64 = 1e6;

impl Wires {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let Self { resistances, on, off, weight, tolerance, .. } = *self;
        let sizes = [("on", Some(on)), ("tolerance", Some(tolerance)), ("weight", weight)];
        for (name, value) in sizes {
            value.map_or(Ok(()), |value| positive(name, value))?;
        }
        resistances.check(on, MOST_RESISTIVE)?;
        if !(off >= 0.0 && off < on) {
            return Err(Error::Config(format!(
                "off must be at least 0 and below on, got {off} and {on}"
            )));
        }
        Ok(())
    }

    /// How many numbers [`Wires::prepare`] appends for so many cells.
    pub(crate) fn prepared(cells: usize) -> usize {
        1 + 6 * cells
    }

    /// Appends what [`Grid::of`] reads: the largest weight, then conductances and pivots of both
    /// arrays.
    pub(crate) fn prepare<T: Real>(
        &self,
        (n, m): (usize, usize),
        weights: impl Iterator<Item = T> + Clone,
        prepared: &mut Vec<T>,
    ) {
        let largest = weights.clone().fold(T::ZERO, |most, w| most.max_magnitude(w)).to_f64();
        // Without weights any scale does.
        let weight = self.weight.unwrap_or(if largest > 0.0 { largest } else { 1.0 });
        let first = prepared.len();
        prepared.resize(first + Self::prepared(n * m), T::ZERO);
        let prepared = &mut prepared[first..];
        prepared[0] = T::from_f64(weight);
        // Conductances are in units of the largest.
        let off = T::from_f64(self.off / self.on);
        let slope = T::from_f64((1.0 - self.off / self.on) / weight);
        for (side, fields) in prepared[1..].chunks_exact_mut(3 * n * m).enumerate() {
            let (cells, pivots) = fields.split_at_mut(n * m);
            for (cell, w) in cells.iter_mut().zip(weights.clone()) {
                let size = if side == 0 { w } else { -w };
                let size = if size > T::from_f64(weight) { T::from_f64(weight) } else { size };
                *cell = off + if size > T::ZERO { slope * size } else { T::ZERO };
            }
            let (rows, columns) = pivots.split_at_mut(n * m);
            factor((n, m), self.resistances.pieces(self.on), cells, rows, columns);
        }
    }
}

/// The nodes of one array, solved.
#[derive(Debug, Clone)]
pub struct Nodal<T> {
    /// Currents out of the grounded ends (samples, lines).
    pub currents: Vec<T>,
    /// Voltages of row nodes (samples, rows, columns).
    pub rows: Vec<T>,
    /// Voltages of column nodes (samples, rows, columns).
    pub columns: Vec<T>,
    /// Iterations of the slowest sample.
    pub iterations: u32,
}

impl<T: Real> Nodal<T> {
    /// Solves an array of conductances (rows, columns) for voltages (samples, lines) at the left
    /// ends of rows, or, `turned`, at the bottoms of columns.
    ///
    /// # Errors
    /// [`Error::Shape`] for lengths that do not fit, [`Error::Config`] for a resistance or
    /// tolerance out of range.
    pub fn solve(
        runtime: &Runtime,
        ((n, m), conductances): ((usize, usize), &[T]),
        (voltages, turned): (&[T], bool),
        resistances: Resistances,
        tolerance: f64,
    ) -> Result<Self> {
        let (inputs, outputs) = if turned { (m, n) } else { (n, m) };
        if n * m == 0 || conductances.len() != n * m || !voltages.len().is_multiple_of(inputs) {
            return Err(Error::Shape(format!(
                "an array of {n} rows and {m} columns needs {inputs} voltages per sample"
            )));
        }
        positive("tolerance", tolerance)?;
        let largest = conductances.iter().fold(T::ZERO, |m, &g| m.max_magnitude(g));
        let unit = if largest > T::ZERO { largest } else { T::ONE };
        resistances.check(largest.to_f64(), MOST_RESISTIVE_ALONE)?;
        let cells: Vec<T> = conductances.iter().map(|&g| g / unit).collect();
        let pieces = resistances.pieces(unit.to_f64());
        let (mut rows, mut columns) = (vec![T::ZERO; n * m], vec![T::ZERO; n * m]);
        factor((n, m), pieces, &cells, &mut rows, &mut columns);
        let network =
            Network { shape: (n, m), pieces, cells: &cells, rows: &rows, columns: &columns };
        let (samples, lanes) = (voltages.len() / inputs, lanes::<T>(runtime.level()));
        let (mut currents, mut iterations) =
            (vec![T::ZERO; samples * outputs], vec![0; samples.div_ceil(lanes)]);
        let (mut u, mut v) = (vec![T::ZERO; samples * n * m], vec![T::ZERO; samples * n * m]);
        let pieces = voltages
            .par_chunks(inputs * lanes)
            .zip(currents.par_chunks_mut(outputs * lanes))
            .zip(u.par_chunks_mut(n * m * lanes))
            .zip(v.par_chunks_mut(n * m * lanes))
            .zip(iterations.par_iter_mut());
        runtime.for_each(pieces, |((((x, y), u), v), iterations)| {
            let (mut fields, mut ends, mut units) = (Fields::default(), Vec::new(), Vec::new());
            let (solver, level) = ((tolerance, MOST_ALONE), runtime.level());
            let own = (&mut ends, &mut fields, &mut units);
            *iterations = drive(level, network, turned, x, solver, own);
            gather((&fields, &units), unit, y);
            for (field, out) in [(&fields.u, u), (&fields.v, v)] {
                for (lane, out) in out.chunks_exact_mut(n * m).enumerate() {
                    poll(4 * n * m);
                    out.iter_mut()
                        .zip(field.iter().skip(lane).step_by(lanes))
                        .for_each(|(out, &value)| *out = units[lane] * value);
                }
            }
        });
        let iterations = iterations.into_iter().max().unwrap_or(0);
        Ok(Self { currents, rows: u, columns: v, iterations })
    }
}

/// Memory for a solution: the voltages at the ends, those of nodes, and of every lane what both are
/// to be multiplied with.
type Solution<'a, T> = (&'a mut Vec<T>, &'a mut Fields<T>, &'a mut Vec<T>);

/// Solves for up to a vector of inputs at the rows, or, `turned`, at the columns: the lanes of
/// those that are missing are zero. The largest voltage of a lane becomes one, up to a power of
/// two: the solver squares what is left of currents.
fn drive<T: Real>(
    level: Level,
    network: Network<'_, T>,
    turned: bool,
    x: &[T],
    (tolerance, most): (f64, u32),
    (ends, fields, units): Solution<'_, T>,
) -> u32 {
    let lanes = lanes::<T>(level);
    let width = if turned { network.shape.1 } else { network.shape.0 };
    ends.clear();
    ends.resize(width * lanes, T::ZERO);
    units.clear();
    units.resize(lanes, T::ONE);
    for (lane, x) in x.chunks_exact(width).enumerate() {
        let largest = x.iter().fold(T::ZERO, |m, &x| m.max_magnitude(x)).to_f64();
        // The unit and its inverse are normal numbers.
        let reach = if size_of::<T>() == 8 { 1000.0 } else { 125.0 };
        let exponent = largest.log2().floor().clamp(-reach, reach);
        if exponent.is_finite() {
            units[lane] = T::from_f64(exponent.exp2());
        }
        let inverse = T::ONE / units[lane];
        let own = ends.iter_mut().skip(lane).step_by(lanes);
        own.zip(x).for_each(|(end, &x)| *end = x * inverse);
    }
    let driven = if turned { Drive::Columns(ends) } else { Drive::Rows(ends) };
    solve(level, network, driven, tolerance, most, fields)
}

/// Adds to `y` (samples, lines) the currents out of ends, times `factor`.
fn gather<T: Real>((fields, units): (&Fields<T>, &[T]), factor: T, y: &mut [T]) {
    let lanes = units.len();
    for ((lane, y), &unit) in y.chunks_exact_mut(fields.out.len() / lanes).enumerate().zip(units) {
        y.iter_mut()
            .zip(fields.out.iter().skip(lane).step_by(lanes))
            .for_each(|(y, &current)| *y += factor * (unit * current));
    }
}

/// Scratch memory for a solution.
struct Solver<'a, T: Real> {
    ends: Lent<'a, Vec<T>>,
    units: Lent<'a, Vec<T>>,
    fields: Lent<'a, Fields<T>>,
}

impl<'a, T: Real> Solver<'a, T> {
    fn new(scratch: &'a Scratch<T>) -> Self {
        Self { ends: scratch.empty(), units: scratch.empty(), fields: scratch.fields() }
    }
}

/// Both arrays of a matrix, ready to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid<'a, T> {
    wires: &'a Wires,
    sides: [Network<'a, T>; 2],
    weight: T,
    /// Whether signals go from columns to rows.
    turned: bool,
}

impl<'a, T: Real> Grid<'a, T> {
    pub(crate) fn of(
        wires: &'a Wires,
        shape: (usize, usize),
        prepared: &'a [T],
        turned: bool,
    ) -> Self {
        let (nodes, pieces) = (shape.0 * shape.1, wires.resistances.pieces(wires.on));
        let side = |k: usize| {
            let part = |p: usize| &prepared[1 + (3 * k + p) * nodes..][..nodes];
            Network { shape, pieces, cells: part(0), rows: part(1), columns: part(2) }
        };
        Self { wires, sides: [side(0), side(1)], weight: prepared[0], turned }
    }

    /// Outputs, in weights times inputs, per current out of a line.
    fn scale(&self) -> T {
        self.weight / T::from_f64(1.0 - self.wires.off / self.wires.on)
    }

    fn drive(&self, level: Level, side: usize, turned: bool, x: &[T], own: &mut Solver<'_, T>) {
        let most = if self.wires.exact { MOST } else { 0 };
        let solver = (self.wires.tolerance, most);
        let own = (&mut *own.ends, &mut *own.fields, &mut *own.units);
        drive(level, self.sides[side], turned, x, solver, own);
    }

    /// Writes what is read for rows of inputs.
    pub(crate) fn read(&self, level: Level, scratch: &Scratch<T>, x: &[T], y: &mut [T]) {
        let (n, m) = self.sides[0].shape;
        let (inputs, outputs) = if self.turned { (m, n) } else { (n, m) };
        let (lanes, mut own) = (lanes::<T>(level), Solver::new(scratch));
        y.fill(T::ZERO);
        for (x, y) in x.chunks(inputs * lanes).zip(y.chunks_mut(outputs * lanes)) {
            for (side, factor) in [(0, self.scale()), (1, -self.scale())] {
                self.drive(level, side, self.turned, x, &mut own);
                gather((&own.fields, &own.units), factor, y);
            }
        }
    }

    /// Writes dy times the Jacobian by the weights to `gradient` (zeros before; empty: not wanted),
    /// and that by the inputs to `dx` (empty: not wanted). The adjoint of a read is a read from the
    /// other side (reciprocity): the derivative by a conductance is minus the product of the
    /// voltages across it in both (Tellegen's theorem). Where the largest weight is the largest
    /// conductance, it scales all others.
    pub(crate) fn vjp(
        &self,
        (level, scratch): (Level, &Scratch<T>),
        weights: &[T],
        (x, dy): (&[T], &[T]),
        dx: &mut [T],
        gradient: &mut [T],
    ) {
        let (n, m) = self.sides[0].shape;
        let lanes = lanes::<T>(level);
        let (mut ahead, mut adjoint) = (Solver::new(scratch), Solver::new(scratch));
        let scaled = self.wires.weight.is_none() && !gradient.is_empty();
        let mut own = scratch.zeros(if scaled && dx.is_empty() { x.len() } else { 0 });
        let dx = if own.is_empty() { dx } else { &mut own };
        dx.fill(T::ZERO);
        for (c, (x, dy)) in x.chunks(n * lanes).zip(dy.chunks(m * lanes)).enumerate() {
            for (side, factor) in [(0, self.scale()), (1, -self.scale())] {
                self.drive(level, side, true, dy, &mut adjoint);
                if !dx.is_empty() {
                    let first = c * n * lanes;
                    let dx = &mut dx[first..first + x.len()];
                    gather((&adjoint.fields, &adjoint.units), factor, dx);
                }
                if gradient.is_empty() {
                    continue;
                }
                self.drive(level, side, false, x, &mut ahead);
                let units: SmallVec<[T; 16]> =
                    ahead.units.iter().zip(&*adjoint.units).map(|(&a, &b)| a * b).collect();
                let (fields, adjoint) = (&ahead.fields, &adjoint.fields);
                for (k, (gradient, &w)) in gradient.iter_mut().zip(weights).enumerate() {
                    let size = if side == 0 { w } else { -w };
                    // At zero either side grows; beyond the largest weight none does.
                    if size < T::ZERO || (size == T::ZERO && side == 1) || size > self.weight {
                        continue;
                    }
                    let own = k * lanes..(k + 1) * lanes;
                    let across = fields.u[own.clone()].iter().zip(&fields.v[own.clone()]);
                    let back = adjoint.u[own.clone()].iter().zip(&adjoint.v[own]);
                    let products = across.zip(back).map(|((&u, &v), (&p, &q))| (u - v) * (q - p));
                    *gradient += products.zip(&units).map(|(product, &unit)| product * unit).sum();
                }
            }
        }
        let largest = weights.iter().position(|w| w.abs() == self.weight).filter(|_| scaled);
        if let Some(k) = largest {
            // Outputs y are W times what conductances make of inputs, and these are those of w / W:
            // dy / dW = (y - sum_k w_k dy / dw_k) / W. And dL / dy times y is dL / dx times x.
            gradient[k] += (dot(level, dx, x) - dot(level, gradient, weights)) / weights[k];
        }
    }
}
