//! The draw index: which experiment random numbers are drawn for.

use pnncore_kernels::philox::Philox;

/// Candidates of one training step, and samples of one inference, that are told apart.
const PER_STEP: u32 = 24;

/// The draw index of an experiment.
///
/// Random numbers are a function of the seed, of their purpose and of the draw index, and never of
/// who draws them or when: the same experiment draws the same numbers on any number of threads, and
/// again after a run is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawIndex(u64);

impl DrawIndex {
    /// The first draw of a training step, `steps` having been made before.
    pub fn of_step(steps: u64) -> Self {
        Self(steps << PER_STEP)
    }

    /// The training step of this draw: how many were made before.
    pub fn step(self) -> u64 {
        self.0 >> PER_STEP
    }

    /// The first draw of an inference, `repeats` having been made before on the same inputs. No
    /// training step gets there.
    pub fn of_inference(repeats: u64) -> Self {
        Self(1 << 63 | repeats << 32)
    }

    /// The draw `k` places after this one: that of another candidate of a step, or of another part
    /// of the inputs.
    #[must_use]
    pub fn after(self, k: u64) -> Self {
        Self(self.0 + k)
    }

    /// The numbers of this draw, of a stream that a purpose has.
    pub fn of(self, purpose: Philox) -> Philox {
        purpose.at(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnncore_kernels::philox::Purpose;

    #[test]
    fn steps_candidates_and_inferences_draw_numbers_of_their_own() {
        let random = Philox::new(7, Purpose::Noise);
        let draws = [
            DrawIndex::of_step(0),
            DrawIndex::of_step(0).after(1),
            DrawIndex::of_step(1),
            DrawIndex::of_inference(0),
            DrawIndex::of_inference(1),
            DrawIndex::of_inference(0).after(1),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(
                draws[..i].iter().all(|b| a.of(random).words(0, 0) != b.of(random).words(0, 0))
            );
        }
    }
}
