//! Cells that change by pulses: trains of pulses on rows and columns of an array, and what the
//! coincidences do to its cells.
//!
//! A row of cells is worked on sixteen at a time, through all samples of a batch, so that what
//! makes a cell what it is is loaded once per batch. Per sample and sixteen cells there are about
//! twenty instructions that count coincidences, ten where a row sends one pulse. Where steps depend
//! on the state, what takes the time are the normal numbers of pulses that come, sixteen to some
//! sixty cycles.

mod law;
mod trains;

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

/// A piece of a row: as many cells as a vector holds.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub struct Cells<V> {
    weights: V,
    lower: V,
    upper: V,
    up: V,
    down: V,
    up_slope: V,
    down_slope: V,
}

/// The pulses of one sample on their way to a piece.
struct Coming<V> {
    /// How many come to each cell.
    number: V,
    /// One where they are down, otherwise zero.
    falls: V,
    /// How many come to the cell that most come to.
    most: u32,
}

impl<V: Vector> Cells<V> {
    #[inline(always)]
    fn new(row: &Row<'_, V::Scalar>, first: usize) -> Self {
        Self {
            weights: load(row.weights, first),
            lower: load(row.lower, first),
            upper: load(row.upper, first),
            up: load(row.up, first),
            down: load(row.down, first),
            up_slope: load(row.up_slope, first),
            down_slope: load(row.down_slope, first),
        }
    }

    /// Sends one pulse, down where `falls` is one, to the cells where `comes` is one.
    #[inline(always)]
    fn pulse(
        &mut self,
        law: impl Law<V::Scalar>,
        scatter: Scatter<V::Scalar>,
        falls: V,
        comes: V,
        xi: V,
    ) {
        let step = choose(falls, self.down, self.up);
        let mean = law.mean(self, falls, step);
        let spread = if scatter.additive { step } else { mean };
        // SAFETY: as for `splat`.
        unsafe {
            let change = spread.mul_add(xi.mul(V::splat(scatter.cycle)), mean);
            self.weights = self.lower.max(self.upper.min(comes.mul_add(change, self.weights)));
        }
    }

    /// Sends all pulses of a batch at once, where steps do not depend on the state, unless one of
    /// the cells may come near a bound on its way; tells whether it did. `xi` is normal where there
    /// are pulses.
    #[inline(always)]
    fn batch_at_once(&mut self, scatter: Scatter<V::Scalar>, ups: V, downs: V, xi: V) -> bool {
        // SAFETY: as for `splat`.
        unsafe {
            let (w, one) = (self.weights, V::splat(Real::ONE));
            let (rise, fall) = (ups.mul(self.up), downs.mul(self.down));
            let variance = rise.mul_add(self.up, fall.mul(self.down));
            let deviation = variance.sqrt().mul(V::splat(scatter.cycle));
            let margin = deviation.mul(V::splat(Real::from_f64(FAR)));
            let over = w.add(rise).add(margin).step(self.upper);
            let under = self.lower.step(w.add(fall).sub(margin));
            let moved = ups.add(downs).step(one);
            if over.add(under).mul(moved).any() {
                return false;
            }
            self.weights = w.add(deviation.mul_add(xi, rise.add(fall)));
        }
        true
    }

    /// Sends all pulses of a sample at once, unless one of the cells comes near a bound; tells
    /// whether it did.
    ///
    /// A step is u = a + b w, times 1 + cycle xi: u becomes q u with q = 1 + b (1 + cycle xi). So
    /// the n-th step has the mean square (E q^2)^(n-1) times that of the first, and what it adds to
    /// the end is scaled by E q once per pulse that follows.
    #[inline(always)]
    fn pulse_at_once(
        &mut self,
        sloped: bool,
        scatter: Scatter<V::Scalar>,
        coming: &Coming<V>,
        xi: V,
    ) -> bool {
        let (w, falls, number) = (self.weights, coming.falls, coming.number);
        // SAFETY: as for `splat`.
        unsafe {
            let (zero, one, cycle) =
                (V::splat(Real::ZERO), V::splat(Real::ONE), V::splat(scatter.cycle));
            let step = choose(falls, self.down, self.up);
            let (mut sum, mut variance, mut first) = (number, number, step);
            if sloped {
                let slope = choose(falls, self.down_slope, self.up_slope);
                first = slope.mul_add(w, step);
                let keep = one.add(slope);
                let kept = keep.mul(keep);
                let off = slope.mul(cycle);
                let grow = if scatter.additive { one } else { off.mul_add(off, kept) };
                let mut square = one;
                (sum, variance) = (zero, zero);
                for k in 1..=coming.most {
                    let comes = number.step(V::splat(<V::Scalar as Real>::from_u32(k)));
                    sum = choose(comes, sum.mul_add(keep, one), sum);
                    variance = choose(comes, variance.mul_add(kept, square), variance);
                    square = square.mul(grow);
                }
            }
            let mean = first.mul(sum);
            let spread = if scatter.additive { step } else { first };
            let deviation = spread.mul(cycle).mul(variance.sqrt());
            let size = |x: V| zero.max_magnitude(x);
            let reach = V::splat(Real::from_f64(FAR)).mul_add(size(deviation), size(mean));
            // What is left to the nearer bound; cells that stay where they are may be at one.
            let left = w.sub(self.lower).min(self.upper.sub(w));
            let short = one.sub(left.step(reach)).mul(number.step(one));
            if short.any() {
                return false;
            }
            self.weights = w.add(deviation.mul_add(xi, mean));
        }
        true
    }
}

/// Cells whose numbers of pulses are summed as such.
const SUMMED: usize = 32 * GROUP;

/// Entries that are looked at together.
const CHUNK: usize = 64;

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
    let (zero, one) = (splat::<V>(Real::ZERO), splat::<V>(Real::ONE));
    let n = row.weights.len();
    let noisy = scatter.cycle > Real::ZERO;
    let entries = match counts {
        Counts::Trains(rows, ..) => rows.len(),
        Counts::Means(rows, ..) => rows.len(),
    };
    if entries == 0 {
        return 0.0;
    }
    // Whether every train of the row has a single pulse.
    let once = match counts {
        Counts::Trains(rows, ..) => rows.iter().all(|(_, own)| (own & !SIGN).is_power_of_two()),
        Counts::Means(..) => false,
    };
    // Whole numbers, exact as long as they are summed as doubles now and then.
    let (mut sent, mut recent) = (0.0, zero);
    let (mut normals, mut uniform) = (Numbers::new(source, 0), Numbers::new(source, 1));
    for first in (0..n).step_by(V::LANES) {
        if first % SUMMED == 0 {
            // SAFETY: as for `splat`.
            sent += unsafe { recent.sum() }.to_f64();
            recent = zero;
        }
        let mut held: Option<Cells<V>> = None;
        let mut total = zero;
        let mut summed = false;
        if let (Counts::Trains(rows, columns, samples), true) =
            (counts, L::AFFINE && !L::SLOPED && at_once)
        {
            let (ups, mut downs) = tally::<V>(rows, once, columns, samples, first);
            if row.one_way {
                downs = zero;
            }
            // SAFETY: as for `splat`.
            let all = unsafe { ups.add(downs) };
            // SAFETY: as for `splat`.
            if !unsafe { all.any() } {
                continue;
            }
            let mut cells = Cells::new(row, first);
            // SAFETY: as for `splat`.
            let xi = if noisy { normals.next(true, unsafe { all.step(one) }) } else { zero };
            summed = cells.batch_at_once(scatter, ups, downs, xi);
            if summed {
                (held, total) = (Some(cells), all);
            }
        }
        for start in (0..if summed { 0 } else { entries }).step_by(CHUNK) {
            let mut left = meeting::<V>(counts, start, first);
            while left != 0 {
                let coming = count::<V>(
                    counts,
                    start + left.trailing_zeros() as usize,
                    (first, n),
                    row.one_way,
                    &mut uniform,
                );
                left &= left - 1;
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
                let (mut xi, mut done) = (zero, false);
                if L::AFFINE && at_once && coming.most > 1 {
                    if noisy {
                        // SAFETY: as for `splat`.
                        xi = normals.next(true, unsafe { coming.number.step(one) });
                    }
                    done = cells.pulse_at_once(L::SLOPED, scatter, &coming, xi);
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
                held = Some(cells);
            }
        }
        let Some(cells) = held else { continue };
        store(cells.weights, first, row.weights);
        let mut pulses = load::<V>(row.pulses, first);
        // SAFETY: as for `splat`.
        unsafe {
            pulses = pulses.add(total);
            recent = recent.add(total);
        }
        store(pulses, first, row.pulses);
        if !row.visible.is_empty() {
            let xi = normals.next(true, one);
            let mut seen = load::<V>(row.visible, first);
            // SAFETY: as for `splat`.
            unsafe {
                let written = xi.mul_add(V::splat(scatter.write), cells.weights);
                seen = choose(total.step(V::splat(Real::ONE)), written, seen);
            }
            store(seen, first, row.visible);
        }
    }
    // SAFETY: as for `splat`.
    sent + unsafe { recent.sum() }.to_f64()
}
