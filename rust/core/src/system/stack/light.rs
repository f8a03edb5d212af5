//! Layers of light in stacks: where it can be read on its way, and what outputs are of its phases.

use std::ops::Range;

use pnncore_kernels::Real;

use super::layer::Role;
use super::{Stack, Stage};

impl<T: Real> Stack<T> {
    /// Whether errors can be sent back through some of the hardware.
    pub fn goes_back(&self) -> bool {
        !self.light.is_empty() || self.stages.iter().any(|stage| stage.hardware().has_reverse())
    }

    /// Whether some monitors of light read intensities: see [`super::Layer::reads_fields`].
    pub fn reads_intensities(&self) -> bool {
        let stages = self.light.iter().flat_map(|run| &self.stages[run.clone()]);
        stages.into_iter().any(|stage| !stage.hardware().reads_fields())
    }

    /// How many numbers are read of a sample where every monitor of intensities is read `times`
    /// times: with both quadratures of the fields that come out, of signals at the outputs and of
    /// errors at the inputs. Phase-shifting interferometry takes four intensities of a field, that
    /// of signals and that of errors.
    pub fn readings_of_light(&self, times: usize) -> usize {
        let own = |stage: &Stage<T>| match stage.hardware().points_read() {
            Some(points) => 8 * points,
            None => times * stage.hardware().monitors().unwrap_or(0),
        };
        let of = |run: &Range<usize>| {
            let monitors: usize = self.stages[run.clone()].iter().map(own).sum();
            let ends =
                self.stages[run.start].twin().inputs() + self.stages[run.end - 1].twin().outputs();
            monitors + ends
        };
        self.light.iter().map(of).sum()
    }

    /// How many numbers are read of a sample where derivatives are measured as products of elements
    /// of a scattering matrix.
    pub fn scattering_read(&self) -> usize {
        self.stages.iter().filter_map(|stage| stage.hardware().scattering_read()).sum()
    }

    /// Whether there is light, and all of it passes media whose transfer equals its transpose.
    pub(super) fn has_symmetric_light(&self) -> bool {
        !self.light.is_empty() && self.first_without_symmetric_medium().is_none()
    }

    /// The first layer of light, if there is one, through which errors cannot be sent forward.
    pub(super) fn first_without_symmetric_medium(&self) -> Option<usize> {
        self.stages
            .iter()
            .position(|stage| stage.is_light() && !stage.hardware().has_symmetric_medium())
    }

    /// Whether the parameters are all phases of which each output is a sinusoidal function: those
    /// of one layer at the end, or of light that passes nothing but linear layers, and is detected.
    pub(super) fn has_sinusoidal_outputs(&self) -> bool {
        let Some(first) = self.stages.iter().position(|stage| !stage.params.is_empty()) else {
            return false;
        };
        let phases = |stage: &Stage<T>| {
            stage.params.is_empty()
                || stage.twin().is_sinusoidal() && stage.hardware().is_sinusoidal()
        };
        let Some((last, before)) = self.stages[first..].split_last() else { return false };
        let linear = |stage: &Stage<T>| {
            stage.twin().gives().complex && stage.twin().is_linear_in_fields() && phases(stage)
        };
        let ends = if before.is_empty() {
            !last.twin().gives().complex && phases(last)
        } else {
            last.twin().role() == Role::Detection
        };
        ends && before.iter().all(linear)
    }
}

/// What [`Stack::light`] gives: a field in the midst of a run is not known to anybody, so that all
/// layers of it must have monitors.
pub(super) fn light_runs<T: Real>(stages: &[Stage<T>]) -> Vec<Range<usize>> {
    let mut first = 0;
    let runs = stages.chunk_by(|a, b| a.is_light() && b.is_light()).filter_map(|run| {
        let range = first..first + run.len();
        first = range.end;
        let has = |stage: &Stage<T>| stage.is_light() && stage.hardware().monitors().is_some();
        run.iter().all(has).then_some(range)
    });
    runs.collect()
}
