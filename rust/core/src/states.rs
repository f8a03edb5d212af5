//! States of a batch, one row per sample and phase, and how each row ended.

use pnncore_kernels::{AVec, Real, avec};

/// How the phase of a sample, a row of [`States`], ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Status {
    /// The stopping rule was met.
    #[default]
    Converged = 0,
    /// The sweeps ran out before the tolerance was met.
    Unconverged = 1,
    /// A state became NaN or infinite. The row is blank and contributes nothing.
    Diverged = 2,
    /// The energy has no minimum under this boundary. The row is blank and contributes nothing.
    Unbounded = 3,
    /// The phase went on for as long as it was to: there is nothing to converge in a pass through
    /// layers, or in a motion.
    Completed = 4,
    /// The stopping rule was met at a saddle point, or a maximum: whatever disturbs the state moves
    /// it away.
    Saddle = 5,
    /// The stopping rule was met at one of many states: a mode costs no energy.
    Floppy = 6,
}

impl Status {
    /// All statuses, by their number.
    pub const ALL: [Self; 7] = [
        Self::Converged,
        Self::Unconverged,
        Self::Diverged,
        Self::Unbounded,
        Self::Completed,
        Self::Saddle,
        Self::Floppy,
    ];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Unconverged => "unconverged",
            Self::Diverged => "diverged",
            Self::Unbounded => "unbounded",
            Self::Completed => "completed",
            Self::Saddle => "saddle",
            Self::Floppy => "floppy",
        }
    }

    /// Whether the row holds states that mean something.
    pub fn usable(self) -> bool {
        !matches!(self, Self::Diverged | Self::Unbounded)
    }
}

/// What is known of a row besides its states.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Sweeps it took.
    pub sweeps: u32,
    /// The largest change of a unit in the last sweep.
    pub change: f64,
    /// By how much more the next sweep is expected to change, as a ratio: that of the last two, or
    /// what an accelerated settler knows better. 0: nothing is expected.
    pub ratio: f64,
    /// Sweeps in a row up to the last that each changed more than the one before.
    pub growing: u32,
    /// The largest state, which inference and rounding errors are measured by; 0 where states are
    /// of order one.
    pub magnitude: f64,
    /// By how much rounding errors move states, where that is more than their size says.
    pub rounding: f64,
}

impl Outcome {
    /// Notes a sweep and the largest change it made.
    pub fn sweep(&mut self, change: f64) {
        self.ratio = if self.sweeps > 0 { change / self.change } else { 0.0 };
        self.growing = if self.ratio > 1.0 { self.growing + 1 } else { 0 };
        self.change = change;
        self.sweeps += 1;
    }

    /// Notes how large the states are, where they are larger than before.
    pub fn see_magnitude<T: Real>(&mut self, states: &[T]) {
        let largest = states.iter().fold(T::ZERO, |m, &s| m.max_magnitude(s)).to_f64();
        self.magnitude = self.magnitude.max_magnitude(largest);
    }

    /// An estimate of how far the states are from steady: the changes to come, were they to go on
    /// shrinking like this.
    pub fn distance(&self) -> f64 {
        if self.change == 0.0 {
            return 0.0;
        }
        let ratio = self.ratio;
        if ratio < 1.0 { self.change * (ratio / (1.0 - ratio)).max(1.0) } else { f64::INFINITY }
    }
}

/// Where the layers of a system lie in a row of [`States`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    sizes: Vec<usize>,
    offsets: Vec<usize>,
    stride: usize,
}

/// Layers start at multiples of this many elements: a cache line of f32.
const ALIGN: usize = 16;

impl Layout {
    /// A layout of layers of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        let mut offsets = Vec::with_capacity(sizes.len());
        let mut stride = 0;
        for size in sizes {
            offsets.push(stride);
            stride += size.next_multiple_of(ALIGN);
        }
        Self { sizes: sizes.to_vec(), offsets, stride }
    }

    /// The sizes of the layers, outputs last.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Elements per row, padding included.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where layer `l` lies in a row.
    pub fn layer(&self, l: usize) -> std::ops::Range<usize> {
        self.offsets[l]..self.offsets[l] + self.sizes[l]
    }

    /// Where layer `l` lies in a row, with the zeros that fill it up to [`Self::padded`] elements.
    pub fn padded_layer(&self, l: usize) -> std::ops::Range<usize> {
        self.offsets[l]..self.offsets[l] + self.padded(l)
    }

    /// The size of layer `l`, padding included.
    pub fn padded(&self, l: usize) -> usize {
        self.sizes[l].next_multiple_of(ALIGN)
    }

    /// Where the outputs lie in a row.
    pub fn outputs(&self) -> std::ops::Range<usize> {
        self.layer(self.sizes.len() - 1)
    }
}

/// The states of a batch: for each sample one row per phase, the free one first.
///
/// Row `i * phases + p` is phase `p` of sample `i`, so that the rows of some samples are one piece
/// of memory. Where the plan is complex, a row holds the real parts of all layers, then the
/// imaginary parts.
#[derive(Debug, Clone)]
pub struct States<T> {
    layout: Layout,
    phases: usize,
    complex: bool,
    /// The states, row by row, [`States::stride`] elements apart.
    pub values: AVec<T>,
    /// One outcome per row.
    pub outcomes: Vec<Outcome>,
}

impl<T: Real> States<T> {
    /// States without rows.
    pub fn new(layout: Layout) -> Self {
        Self { layout, phases: 1, complex: false, values: avec![], outcomes: Vec::new() }
    }

    /// Makes room for a batch, the free states at rest (zero): other phases start from where these
    /// end. Keeps the memory.
    pub fn reset(&mut self, samples: usize, phases: usize, complex: bool) {
        self.phases = phases;
        self.complex = complex;
        let rows = samples * phases;
        let stride = self.stride();
        let kept = self.values.len().min(rows * stride);
        self.values.resize(rows * stride, T::ZERO);
        for sample in self.values[..kept].chunks_mut((phases * stride).max(1)) {
            let free = stride.min(sample.len());
            sample[..free].fill(T::ZERO);
        }
        self.outcomes.clear();
        self.outcomes.resize(rows, Outcome::default());
    }

    /// Keeps the states as they are, and forgets how rows ended, where these are the rows of such a
    /// batch; returns whether they are.
    pub fn keep(&mut self, samples: usize, phases: usize, complex: bool) -> bool {
        let fits = (self.rows(), self.phases, self.complex) == (samples * phases, phases, complex);
        if fits {
            self.outcomes.fill(Outcome::default());
        }
        fits
    }

    /// Where the layers lie in a row, the rows, and how each has ended.
    pub(crate) fn parts_mut(&mut self) -> (&Layout, &mut [T], &mut [Outcome]) {
        (&self.layout, &mut self.values, &mut self.outcomes)
    }

    /// Where the layers lie in a row.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.layout.stride() * if self.complex { 2 } else { 1 }
    }

    /// Whether states are complex.
    pub fn is_complex(&self) -> bool {
        self.complex
    }

    /// Phases per sample.
    pub fn phases(&self) -> usize {
        self.phases
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.outcomes.len() / self.phases
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.outcomes.len()
    }

    /// The real parts of row `r`.
    pub fn row(&self, r: usize) -> &[T] {
        &self.values[r * self.stride()..][..self.layout.stride()]
    }

    /// The real parts of row `r`, to change.
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        let (stride, len) = (self.stride(), self.layout.stride());
        &mut self.values[r * stride..][..len]
    }

    /// The imaginary parts of row `r`; empty where the plan is real.
    pub fn imaginary_row(&self, r: usize) -> &[T] {
        &self.values[r * self.stride()..(r + 1) * self.stride()][self.layout.stride()..]
    }

    /// Layer `l` of row `r`.
    pub fn layer(&self, r: usize, l: usize) -> &[T] {
        &self.row(r)[self.layout.layer(l)]
    }

    /// The outputs of row `r`.
    pub fn outputs(&self, r: usize) -> &[T] {
        &self.row(r)[self.layout.outputs()]
    }

    /// The rows of the last phase alone, as states of one phase.
    #[must_use]
    pub fn last_phase(&self) -> Self {
        let stride = self.stride();
        let mut last = Self::new(self.layout.clone());
        last.reset(self.samples(), 1, self.complex);
        for (i, row) in last.values.chunks_exact_mut(stride.max(1)).enumerate() {
            row.copy_from_slice(&self.values[((i + 1) * self.phases - 1) * stride..][..stride]);
        }
        for (i, outcome) in last.outcomes.iter_mut().enumerate() {
            *outcome = self.outcomes[(i + 1) * self.phases - 1];
        }
        last
    }

    /// Whether every phase of sample `i` is usable.
    pub fn usable(&self, i: usize) -> bool {
        self.outcomes[i * self.phases..(i + 1) * self.phases]
            .iter()
            .all(|outcome| outcome.status.usable())
    }
}
