//! What experiments cost.

/// What experiments cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Runs of the physics on a batch.
    pub passes: u64,
    /// Samples that the physics was run on, all passes together.
    pub measured: u64,
    /// Multiply-adds of the digital computer beside it.
    pub operations: u64,
    /// Pulses that came to cells.
    pub pulses: u64,
    /// Samples whose errors were sent back through the physics.
    pub reversed: u64,
    /// Numbers that were read within the physics, beside its outputs.
    pub reads: u64,
}

impl Cost {
    /// Counts passes of a batch through the physics.
    pub fn add(&mut self, passes: usize, samples: usize) {
        self.passes += passes as u64;
        self.measured += (passes * samples) as u64;
    }
}
