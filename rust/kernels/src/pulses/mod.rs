//! Cells that change by pulses: trains of pulses on rows and columns of an array, and what the
//! coincidences do to its cells.
//!
//! A row of cells is worked on sixteen at a time, through all samples of a batch, so that what
//! makes a cell what it is is loaded once per batch. Per sample and sixteen cells there are about
//! twenty instructions that count coincidences, ten where a row sends one pulse. Where steps depend
//! on the state, what takes the time are the normal numbers of pulses that come, sixteen to some
//! sixty cycles.

mod cells;
mod law;
mod trains;

#[doc(hidden)]
pub use cells::Cells;
use cells::Coming;
pub use law::{Constant, Exponential, Law, Linear, Power, Table};
pub use trains::trains;

use crate::level::{Level, dispatch};
use crate::philox::{LANES, Philox, fill_body, fill_normal_body};
use crate::simd::{Real, Vector};

/// Cells that are worked on together.
pub const GROUP: usize = LANES;

/// The most slots of a train: a word holds them and a sign.
pub const MOST_SLOTS: u32 = 31;

/// The bit of a train that tells its sign.
const SIGN: u32 = 1 << 31;

/// Draws that a row may take in a batch, in whole blocks.
const DRAWS_OF_ROW: u64 = 1 << 32;

/// How far from its bounds a cell must stay, in deviations of where its pulses take it, for them to
/// be summed at once.
const FAR: f64 = 6.0;

/// Cells whose numbers of pulses are summed as such.
const SUMMED: usize = 32 * GROUP;

/// Entries that are looked at together.
const CHUNK: usize = 64;

/// What is random about pulses.
#[derive(Debug, Clone, Copy)]
pub struct Scatter<T> {
    /// The deviation of a step, as a fraction of it.
    pub cycle: T,
    /// Whether it is one of the step at no slope (the step of [`Row::up`] or [`Row::down`])
    /// instead.
    pub additive: bool,
    /// The deviation of what a write adds to what is seen of a cell.
    pub write: T,
}

/// A row of cells. All slices have the same length, or are empty where that is said.
#[derive(Debug)]
pub struct Row<'a, T> {
    /// The state that pulses move.
    pub weights: &'a mut [T],
    /// What is seen of it, where writes are noisy; otherwise empty.
    pub visible: &'a mut [T],
    /// How many pulses each cell has had.
    pub pulses: &'a mut [T],
    /// The step of a pulse up: not negative.
    pub up: &'a [T],
    /// The step of a pulse down: not positive.
    pub down: &'a [T],
    /// What is added to a step up per unit of the state; empty: nothing.
    pub up_slope: &'a [T],
    /// The same for steps down.
    pub down_slope: &'a [T],
    /// The lowest state.
    pub lower: &'a [T],
    /// The highest state.
    pub upper: &'a [T],
    /// Whether pulses down do not come.
    pub one_way: bool,
}

/// How many pulses come.
#[derive(Debug, Clone, Copy)]
pub enum Counts<'a, T> {
    /// As trains coincide: those of the row that have pulses, each with its sample; of the columns
    /// as [`trains`] leaves them, for so many samples. Up where both have the same sign.
    Trains(&'a [(u32, u32)], &'a [u32], usize),
    /// The product of a number of the row and of one of the columns (samples, columns) per sample,
    /// at most this much, rounded at random to one of the next integers. Up where it is positive.
    Means(&'a [T], &'a [T], T),
}

/// Where the random numbers of a row of cells come from: from two groups on.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The stream.
    pub random: Philox,
    /// The first group.
    pub group: u32,
    /// The number of the row.
    pub row: u64,
}

/// Sends the pulses of all samples, one after the other, to a row of cells. Where `at_once`, the
/// law is affine and the cell is far from its bounds, those of one sample are summed at once: the
/// first two moments are those of pulses one by one. Where steps do not depend on the state at all,
/// those of all samples are: the law is the same.
///
/// Returns how many pulses came to cells.
///
/// # Panics
/// If lengths differ.
pub fn pulse<T: Real, L: Law<T>>(
    level: Level,
    law: L,
    scatter: Scatter<T>,
    counts: Counts<'_, T>,
    at_once: bool,
    source: Source,
    row: &mut Row<'_, T>,
) -> f64 {
    let n = row.weights.len();
    match counts {
        Counts::Trains(rows, columns, samples) => {
            assert!(columns.len() == samples * n.div_ceil(GROUP) * GROUP);
            assert!(rows.iter().all(|&(s, _)| (s as usize) < samples));
        }
        Counts::Means(rows, columns, _) => assert!(columns.len() == rows.len() * n),
    }
    let same = [row.pulses.len(), row.up.len(), row.down.len(), row.lower.len(), row.upper.len()];
    let slopes = if L::SLOPED { n } else { 0 };
    assert!(same.iter().all(|&len| len == n) && [0, n].contains(&row.visible.len()));
    assert!(row.up_slope.len() == slopes && row.down_slope.len() == slopes);
    pulse_row(level, law, scatter, counts, at_once, source, row)
}

dispatch! {
    fn pulse_row<T, L: Law<T>>(
        level: Level,
        law: L,
        scatter: Scatter<T>,
        counts: Counts<'_, T>,
        at_once: bool,
        source: Source,
        row: &mut Row<'_, T>,
    ) -> f64 = pulse_row_body
}

#[inline(always)]
fn splat<V: Vector>(x: V::Scalar) -> V {
    // SAFETY: `dispatch!` vouches for the instruction set, here and below.
    unsafe { V::splat(x) }
}

/// A vector of `values` from `first` on; zeros beyond the last.
#[inline(always)]
fn load<V: Vector>(values: &[V::Scalar], first: usize) -> V {
    let rest = values.get(first..).unwrap_or_default();
    if rest.is_empty() {
        // Reading nothing from nowhere is slow.
        return splat(Real::ZERO);
    }
    // SAFETY: a whole vector is there, or as much as there is is read.
    unsafe {
        if rest.len() >= V::LANES {
            V::load(rest.as_ptr())
        } else {
            V::load_first(rest.as_ptr(), rest.len())
        }
    }
}

/// Writes a vector to `values` from `first` on, as far as these go.
#[inline(always)]
fn store<V: Vector>(held: V, first: usize, values: &mut [V::Scalar]) {
    let rest = values.get_mut(first..).unwrap_or_default();
    // SAFETY: as above.
    unsafe {
        if rest.len() >= V::LANES {
            held.store(rest.as_mut_ptr());
        } else {
            held.store_first(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// Numbers of a stream, drawn in blocks and handed to the cells that need one.
struct Numbers<T> {
    /// What was left of a block before the last one ends where that begins.
    held: Ahead<T>,
    used: usize,
    draw: u64,
    counter: [u32; 2],
    key: [u32; 2],
}

#[repr(align(64))]
struct Ahead<T>([T; AHEAD + BLOCK]);

/// Numbers of a block.
const BLOCK: usize = 4 * LANES;

/// The most numbers that are left of one: fewer than a vector.
const AHEAD: usize = LANES;

impl<T: Real> Numbers<T> {
    /// The numbers of a row.
    #[inline(always)]
    fn new(source: Source, kind: u32) -> Self {
        let (counter, key) = source.random.stream(source.group + kind);
        let draw = source.row * DRAWS_OF_ROW;
        Self { held: Ahead([T::ZERO; AHEAD + BLOCK]), used: AHEAD + BLOCK, draw, counter, key }
    }

    /// Uniform numbers, or normal ones, where `wanted` is one; zeros where it is zero.
    #[inline(always)]
    fn next<V: Vector<Scalar = T>>(&mut self, normal: bool, wanted: V) -> V {
        const { assert!(AHEAD >= V::LANES) };
        let held = &mut self.held.0;
        if self.used + V::LANES > held.len() {
            let left = held.len() - self.used;
            held.copy_within(self.used.., AHEAD - left);
            // Not by a closure: that would not have the instruction set.
            if normal {
                fill_normal_body::<V>(self.draw, self.counter, self.key, &mut held[AHEAD..]);
            } else {
                fill_body::<V>(self.draw, self.counter, self.key, &mut held[AHEAD..]);
            }
            self.draw += LANES as u64;
            self.used = AHEAD - left;
        }
        // SAFETY: a whole vector is left; the rest as for `splat`.
        let (numbers, n) = unsafe { V::expand(held[self.used..].as_ptr(), wanted) };
        self.used += n;
        numbers
    }
}

/// One of two vectors, lane by lane: `of_one` where `which` is one, `of_zero` where it is zero.
#[inline(always)]
fn choose<V: Vector>(which: V, of_one: V, of_zero: V) -> V {
    // SAFETY: as for `splat`.
    unsafe { which.mul_add(of_one, V::splat(Real::ONE).sub(which).mul(of_zero)) }
}

/// The entries from `start` on, a bit for each, with which pulses may come to the cells from
/// `first` on.
#[inline(always)]
fn meeting<V: Vector>(counts: Counts<'_, V::Scalar>, start: usize, first: usize) -> u64 {
    match counts {
        Counts::Trains(rows, columns, samples) => {
            let columns = &columns[first / GROUP * samples * GROUP..][..samples * GROUP];
            let mut found = 0;
            // Whether trains meet is unpredictable: there is no branch.
            for (k, &(s, own)) in rows[start..].iter().take(CHUNK).enumerate() {
                // SAFETY: every sample has a vector of columns from here on, as `pulse` vouches.
                let meets = unsafe {
                    V::meets(own, columns.as_ptr().add(s as usize * GROUP + first % GROUP))
                };
                found |= u64::from(meets) << k;
            }
            found
        }
        Counts::Means(rows, ..) => u64::MAX >> (CHUNK - CHUNK.min(rows.len() - start)),
    }
}

/// Counts the pulses that come to the cells from `first` on with entry `e` of the row.
#[inline(always)]
fn count<V: Vector>(
    counts: Counts<'_, V::Scalar>,
    e: usize,
    (first, n): (usize, usize),
    one_way: bool,
    uniform: &mut Numbers<V::Scalar>,
) -> Coming<V> {
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    let (mut number, mut falls) = match counts {
        Counts::Trains(rows, columns, samples) => {
            let (s, own) = rows[e];
            let columns = &columns[(first / GROUP * samples + s as usize) * GROUP..]
                [first % GROUP..][..V::LANES];
            // SAFETY: there is a vector of columns; the rest as for `splat`.
            unsafe {
                // A row that sends one pulse needs no look at all lanes.
                if (own & !SIGN).is_power_of_two() && !one_way {
                    let (number, falls) = V::coincide_once(own, columns.as_ptr());
                    return Coming { number, falls, most: 1 };
                }
                V::coincide(own, columns.as_ptr())
            }
        }
        Counts::Means(rows, columns, limit) => {
            let columns = load::<V>(&columns[e * n..(e + 1) * n], first);
            let uniform = uniform.next(false, one);
            // SAFETY: as for `splat`.
            unsafe {
                let wanted = columns.mul(V::splat(rows[e]));
                let size = zero.max_magnitude(wanted).min(V::splat(limit));
                // The next lower integer, and one more as often as what is left is large: an
                // integer stays what it is.
                let near = size.round();
                let whole = near.sub(one.sub(size.step(near)));
                let more = one.sub(uniform.step(size.sub(whole)));
                (whole.add(more), one.sub(wanted.step(zero)))
            }
        }
    };
    if one_way {
        // SAFETY: as for `splat`.
        number = unsafe { number.mul(one.sub(falls)) };
        falls = zero;
    }
    // SAFETY: as for `splat`.
    let most = unsafe { number.largest() }.to_f64() as u32;
    Coming { number, falls, most }
}

/// How many pulses up and down come to the cells from `first` on with all trains, each of a single
/// one where `once`.
#[inline(always)]
fn tally<V: Vector>(
    rows: &[(u32, u32)],
    once: bool,
    columns: &[u32],
    samples: usize,
    first: usize,
) -> (V, V) {
    let columns = &columns[first / GROUP * samples * GROUP..][..samples * GROUP];
    let (mut all, mut downs) = (splat::<V>(Real::ZERO), splat::<V>(Real::ZERO));
    for &(s, own) in rows {
        // SAFETY: every sample has a vector of columns from here on, as `pulse` vouches; the rest
        // as for `splat`.
        unsafe {
            let columns = columns.as_ptr().add(s as usize * GROUP + first % GROUP);
            let (number, falls) =
                if once { V::coincide_once(own, columns) } else { V::coincide(own, columns) };
            all = all.add(number);
            downs = falls.mul_add(number, downs);
        }
    }
    // SAFETY: as for `splat`.
    (unsafe { all.sub(downs) }, downs)
}

/// The entries of a row, and whether each is a train of a single pulse.
fn entries<T>(counts: Counts<'_, T>) -> (usize, bool) {
    match counts {
        Counts::Trains(rows, ..) => {
            (rows.len(), rows.iter().all(|(_, own)| (own & !SIGN).is_power_of_two()))
        }
        Counts::Means(rows, ..) => (rows.len(), false),
    }
}

/// Brings the pulses of all trains of the row to cells at once. `None` where no pulse comes; no
/// cells where they do not move evenly.
#[inline(always)]
fn receive_all<V: Vector>(
    scatter: Scatter<V::Scalar>,
    counts: Counts<'_, V::Scalar>,
    once: bool,
    first: usize,
    normals: &mut Numbers<V::Scalar>,
    row: &Row<'_, V::Scalar>,
) -> Option<(Option<Cells<V>>, V)> {
    let Counts::Trains(rows, columns, samples) = counts else { return None };
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    let (ups, mut downs) = tally::<V>(rows, once, columns, samples, first);
    if row.one_way {
        downs = zero;
    }
    // SAFETY: as for `splat`.
    let (all, some) = unsafe { (ups.add(downs), ups.add(downs).any()) };
    if !some {
        return None;
    }
    let mut cells = Cells::new(row, first);
    let noisy = scatter.cycle > Real::ZERO;
    // SAFETY: as for `splat`.
    let xi = if noisy { normals.next(true, unsafe { all.step(one) }) } else { zero };
    let summed = cells.batch_at_once(scatter, ups, downs, xi);
    Some((summed.then_some(cells), all))
}

/// Brings the pulses of one entry of the row to cells, one by one or all at once.
#[inline(always)]
fn receive<V: Vector, L: Law<V::Scalar>>(
    law: L,
    scatter: Scatter<V::Scalar>,
    at_once: bool,
    coming: &Coming<V>,
    cells: &mut Cells<V>,
    normals: &mut Numbers<V::Scalar>,
) {
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    let noisy = scatter.cycle > Real::ZERO;
    let (mut xi, mut done) = (zero, false);
    if L::AFFINE && at_once && coming.most > 1 {
        if noisy {
            // SAFETY: as for `splat`.
            xi = normals.next(true, unsafe { coming.number.step(one) });
        }
        done = cells.pulse_at_once(L::SLOPED, scatter, coming, xi);
    }
    for k in 1..=if done { 0 } else { coming.most } {
        let mut comes = coming.number;
        if coming.most > 1 {
            // SAFETY: as for `splat`.
            comes = unsafe { comes.step(V::splat(<V::Scalar as Real>::from_u32(k))) };
        }
        if noisy {
            xi = normals.next(true, comes);
        }
        cells.pulse(law, scatter, coming.falls, comes, xi);
    }
}

/// Writes cells back, with the pulses that came to them, and what is seen of them.
#[inline(always)]
fn keep<V: Vector>(
    cells: &Cells<V>,
    total: V,
    scatter: Scatter<V::Scalar>,
    first: usize,
    normals: &mut Numbers<V::Scalar>,
    row: &mut Row<'_, V::Scalar>,
) {
    store(cells.weights, first, row.weights);
    // SAFETY: as for `splat`.
    let pulses = unsafe { load::<V>(row.pulses, first).add(total) };
    store(pulses, first, row.pulses);
    if row.visible.is_empty() {
        return;
    }
    let one = splat::<V>(Real::ONE);
    let (xi, seen) = (normals.next(true, one), load::<V>(row.visible, first));
    // SAFETY: as for `splat`.
    let seen = unsafe {
        let written = xi.mul_add(V::splat(scatter.write), cells.weights);
        choose(total.step(one), written, seen)
    };
    store(seen, first, row.visible);
}

#[inline(always)]
fn pulse_row_body<V: Vector, L: Law<V::Scalar>>(
    law: L,
    scatter: Scatter<V::Scalar>,
    counts: Counts<'_, V::Scalar>,
    at_once: bool,
    source: Source,
    row: &mut Row<'_, V::Scalar>,
) -> f64 {
    const { assert!(GROUP.is_multiple_of(V::LANES)) };
    let (zero, n) = (splat::<V>(Real::ZERO), row.weights.len());
    let (entries, once) = entries(counts);
    if entries == 0 {
        return 0.0;
    }
    // Whole numbers, exact as long as they are summed as doubles now and then.
    let (mut sent, mut recent) = (0.0, zero);
    let (mut normals, mut uniform) = (Numbers::new(source, 0), Numbers::new(source, 1));
    for first in (0..n).step_by(V::LANES) {
        if first % SUMMED == 0 {
            // SAFETY: as for `splat`.
            sent += unsafe { recent.sum() }.to_f64();
            recent = zero;
        }
        let (mut held, mut total, mut summed) = (None, zero, false);
        if let (Counts::Trains(..), true) = (counts, L::AFFINE && !L::SLOPED && at_once) {
            match receive_all(scatter, counts, once, first, &mut normals, row) {
                None => continue,
                Some((Some(cells), all)) => (held, total, summed) = (Some(cells), all, true),
                Some((None, _)) => {}
            }
        }
        for start in (0..if summed { 0 } else { entries }).step_by(CHUNK) {
            let mut left = meeting::<V>(counts, start, first);
            while left != 0 {
                let e = start + left.trailing_zeros() as usize;
                left &= left - 1;
                let coming = count::<V>(counts, e, (first, n), row.one_way, &mut uniform);
                if coming.most == 0 {
                    continue;
                }
                // Not by a closure: that would not have the instruction set.
                let mut cells = match held {
                    Some(cells) => cells,
                    None => Cells::new(row, first),
                };
                // SAFETY: as for `splat`.
                total = unsafe { total.add(coming.number) };
                receive(law, scatter, at_once, &coming, &mut cells, &mut normals);
                held = Some(cells);
            }
        }
        let Some(cells) = held else { continue };
        // SAFETY: as for `splat`.
        recent = unsafe { recent.add(total) };
        keep(&cells, total, scatter, first, &mut normals, row);
    }
    // SAFETY: as for `splat`.
    sent + unsafe { recent.sum() }.to_f64()
}
