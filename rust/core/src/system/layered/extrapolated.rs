//! Extrapolated sweeps of deep networks: which layers secants move, and the energy that says
//! whether they may.
//!
//! Sweeps end with every other layer, `last`; the layers between follow them. After the first half
//! of a sweep these are at their minimum given the last, and the energy is a function of the last
//! alone: an extrapolation that has raised it over that of the sweep before is taken back, so that
//! it never rises from one sweep to the next.

use pnncore_kernels::potential::potential;
use pnncore_kernels::unit::{Unit, Walled};
use pnncore_kernels::{Real, dot};

use super::energy::Energy;
use super::tile::{Context, SampleTile};
use crate::plan::Boundary;
use crate::secant::Advance;

impl<T: Real> Context<'_, T> {
    /// How many units of the last layers are hidden, padding included.
    fn bounded_last(&self) -> usize {
        (1..self.net.layers() - 1).step_by(2).map(|l| self.net.layout.padded(l)).sum()
    }

    /// Copies the last layers out of a row.
    pub(super) fn gather_last(&self, row: &[T], last: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at_mut(self.net.layout.padded(l));
            part.copy_from_slice(&row[self.net.layout.padded_layer(l)]);
            rest = next;
        }
    }

    /// Copies the last layers into a row.
    pub(super) fn scatter_last(&self, last: &[T], row: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at(self.net.layout.padded(l));
            row[self.net.layout.padded_layer(l)].copy_from_slice(part);
            rest = next;
        }
    }

    /// Extrapolates the sweep that row `r` has made, to `tile.last`.
    pub(super) fn extrapolate(&self, r: usize, row: &[T], tile: &mut SampleTile<T>) -> Advance {
        self.gather_last(row, &mut tile.last);
        tile.secants.advance(
            self.runtime.level(),
            r,
            &mut tile.last,
            self.bounded_last(),
            self.net.range(),
        )
    }

    /// The potentials of layers `group`, `group + 2`, ... of a row.
    fn potentials<U: Unit>(&self, group: usize, row: &[T]) -> Energy {
        let (net, level) = (self.net, self.runtime.level());
        let mut energy = Energy::default();
        for l in (group..net.layers()).step_by(2) {
            let states = &row[net.layout.layer(l)];
            // Outputs are linear: their potential is that of units without activation.
            let is_output = l + 1 == net.layers();
            energy.add(if is_output {
                potential::<T, Walled>(level, states)
            } else {
                potential::<T, U>(level, states)
            });
        }
        energy
    }

    /// The energy of a row, with what acts on its outputs; layers `group`, `group + 2`, ... have
    /// moved last.
    pub(super) fn energy<U: Unit>(
        &self,
        first: usize,
        r: usize,
        group: usize,
        row: &[T],
        tile: &mut SampleTile<T>,
    ) -> Energy {
        let (net, level, layout) = (self.net, self.runtime.level(), &self.net.layout);
        // Layers that moved in the first half of a sweep are as they were when it ended.
        let followed = match tile.followed[r].take() {
            Some(followed) if group == 1 => followed,
            _ => self.potentials::<U>(0, row),
        };
        debug_assert_eq!(followed.value.to_bits(), self.potentials::<U>(0, row).value.to_bits());
        tile.followed[r] = (group == 0).then_some(followed);
        let mut energy = followed.join(self.potentials::<U>(1, row));
        // Couplings are part of what drove the layers that moved last, once each.
        for l in (1 - group..net.layers()).step_by(2) {
            let states = &row[layout.layer(l)];
            let bias = match l {
                0 => &tile.drive[r / self.phases * layout.padded(0)..][..states.len()],
                _ => net.bias(self.params, l),
            };
            energy.add(-dot(level, bias, states).to_f64());
        }
        energy.add(-tile.fields[r]);
        let outputs = &row[layout.outputs()];
        match self.plan.boundary(r % self.phases) {
            Boundary::Nudged(beta) => {
                self.write_pull(first, r, tile);
                energy.add(beta.re * self.plan.loss.value(outputs, &tile.target));
            }
            Boundary::Forced(strength) => {
                self.write_pull(first, r, tile);
                energy.add(strength * dot(level, &tile.target, outputs).to_f64());
            }
            Boundary::Free | Boundary::Clamped(_) | Boundary::Kicked(_) => {}
        }
        energy
    }

    /// After the first half of a sweep: brings the rows whose extrapolation has raised the energy
    /// back to where the sweep before ended, and gives which.
    pub(super) fn take_back<U: Unit>(
        &self,
        first: usize,
        active: &[usize],
        states: &mut [T],
        tile: &mut SampleTile<T>,
        raised: &mut Vec<usize>,
    ) {
        raised.clear();
        for &r in active {
            let Some(reached) = tile.reached[r].take() else { continue };
            let row = &mut states[r * self.stride..(r + 1) * self.stride];
            if self.energy::<U>(first, r, 0, row, tile).is_above::<T>(&reached) {
                tile.secants.retract(r, &mut tile.last);
                self.scatter_last(&tile.last, row);
                tile.followed[r] = None;
                raised.push(r);
            }
        }
    }
}
