//! Settling networks of any number of layers: the rows of a tile sweep together.

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::sparse::{Dense, accumulate};
use pnncore_kernels::unit::{self, Unit};
use pnncore_kernels::watch::poll;

use super::settle::{Context, Tile};
use super::{Activation, Physics};
use crate::trial::{Boundary, Order, Outcome, Status};

impl<T: Real> Context<'_, T> {
    /// Any number of layers: the active rows of the tile sweep together, and leave as they are done.
    pub(super) fn settle_together<U: Unit>(
        &self,
        first: usize,
        active: &mut Vec<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut Tile<T>,
    ) {
        let layers = self.net.layers();
        // Layers `group`, `group + groups`, ... move at once, from lists made before any of them moved.
        let groups = match self.plan.settling.order {
            Order::Asynchronous => 2,
            Order::Synchronous => 1,
        };
        let accelerated = self.accelerated();
        for &r in active.iter() {
            outcomes[r] = Outcome::default();
            if accelerated {
                self.gather_last(&states[r * self.stride..], &mut tile.last);
                tile.secants.start(r, &tile.last);
            }
        }
        // Where a nudge has moved the outputs, and they move first in a sweep, the layers that move with them have seen
        // nothing of it yet.
        let mut skip = accelerated && layers % 2 == 1 && active.iter().all(|r| r % self.phases > 0);
        while !active.is_empty() {
            poll(active.len() * self.net.weight_count());
            (groups - 1..layers).step_by(groups).for_each(|l| self.list_layer(l, active, states, tile));
            tile.changes.clear();
            tile.changes.resize(active.len(), 0.0);
            for group in 0..groups {
                if group == 0 && std::mem::take(&mut skip) {
                    (0..layers).step_by(2).for_each(|l| self.list_layer(l, active, states, tile));
                    continue;
                }
                for l in (group..layers).step_by(groups) {
                    self.drive_layer(l, active, tile);
                    self.move_layer::<U>(first, l, active, states, tile);
                }
                if group + 1 < groups {
                    (group..layers).step_by(groups).for_each(|l| self.list_layer(l, active, states, tile));
                }
            }
            for (&r, &change) in active.iter().zip(&tile.changes) {
                outcomes[r].sweep(change);
                if U::NODES && outcomes[r].sweeps == 1 {
                    outcomes[r].see_magnitude(&states[r * self.stride..(r + 1) * self.stride]);
                }
            }
            active.retain(|&r| {
                let row = &mut states[r * self.stride..(r + 1) * self.stride];
                let outputs = self.net.layout.outputs();
                if accelerated {
                    self.gather_last(row, &mut tile.last);
                    let (level, bounded) = (self.lab.level(), self.bounded_last());
                    let ratio = tile.secants.advance(level, r, &mut tile.last, bounded, self.net.range());
                    outcomes[r].ratio = ratio.unwrap_or(0.0);
                }
                let Some(status) = self.verdict(first, r, &outcomes[r], &row[outputs], tile) else {
                    if accelerated {
                        self.scatter_last(&tile.last, row);
                    }
                    return true;
                };
                outcomes[r].status = status;
                if status == Status::Diverged {
                    row.fill(T::ZERO);
                }
                false
            });
        }
    }

    /// How many units of the layers that sweeps end with are hidden, padding included.
    fn bounded_last(&self) -> usize {
        (1..self.net.layers() - 1).step_by(2).map(|l| self.net.layout.padded(l)).sum()
    }

    /// Copies the layers that sweeps end with out of a row.
    fn gather_last(&self, row: &[T], last: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at_mut(self.net.layout.padded(l));
            part.copy_from_slice(&row[self.net.layout.padded_layer(l)]);
            rest = next;
        }
    }

    /// Copies the layers that sweeps end with into a row.
    fn scatter_last(&self, last: &[T], row: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at(self.net.layout.padded(l));
            row[self.net.layout.padded_layer(l)].copy_from_slice(part);
            rest = next;
        }
    }

    /// Lists the non-zeros of layer `l` of the active rows.
    fn list_layer(&self, l: usize, active: &[usize], states: &[T], tile: &mut Tile<T>) {
        let layer = self.net.layout.layer(l);
        for (part, lists) in tile.lists[l].iter_mut().enumerate().take(if self.complex { 2 } else { 1 }) {
            lists.reset(layer.len());
            for &r in active {
                let row = &states[r * self.stride + part * self.net.layout.stride()..];
                lists.push(self.lab.level(), &row[layer.clone()]);
            }
        }
    }

    /// Sums what drives layer `l` of the active rows: biases, the layer before, the layer after.
    fn drive_layer(&self, l: usize, active: &[usize], tile: &mut Tile<T>) {
        let (net, level) = (self.net, self.lab.level());
        let n = net.sizes[l + 1];
        let stride = net.layout.padded(l);
        for part in 0..if self.complex { 2 } else { 1 } {
            let drives = &mut tile.drives[part];
            drives.clear();
            drives.resize(active.len() * stride, T::ZERO);
            if part == 0 {
                for (drive, &r) in drives.chunks_exact_mut(stride).zip(active) {
                    drive[..n].copy_from_slice(match l {
                        0 => &tile.drive[r / self.phases * stride..][..n],
                        _ => net.bias(self.params, l),
                    });
                }
            }
            if l > 0 {
                let m = Dense { data: net.weights(self.params, l), stride: n };
                let lists = &tile.lists[l - 1][part];
                accumulate(level, lists, 0, active.len(), m, n, drives, stride, &mut tile.panel);
            }
            if l + 1 < net.layers() {
                let m = Dense { data: &self.back[l + 1][..], stride };
                let lists = &tile.lists[l + 1][part];
                accumulate(level, lists, 0, active.len(), m, n, drives, stride, &mut tile.panel);
            }
        }
    }

    /// Moves layer `l` of the active rows to the minimum that their drives give.
    fn move_layer<U: Unit>(&self, first: usize, l: usize, active: &[usize], states: &mut [T], tile: &mut Tile<T>) {
        let layer = self.net.layout.layer(l);
        let stride = self.net.layout.padded(l);
        let is_output = l + 1 == self.net.layers();
        for (j, &r) in active.iter().enumerate() {
            if is_output {
                self.write_pull(first, r, tile);
            }
            let [real, imaginary] = &tile.drives;
            let drive = &real[j * stride..][..layer.len()];
            let row = &mut states[r * self.stride..(r + 1) * self.stride];
            let change = if self.complex {
                let drive = (drive, &imaginary[j * stride..][..layer.len()]);
                let (re, im) = row.split_at_mut(self.net.layout.stride());
                let parts = (&mut re[layer.clone()], &mut im[layer.clone()]);
                self.move_complex(r, is_output, drive, parts, &tile.target)
            } else if is_output {
                self.move_outputs(r, drive, &mut row[layer.clone()], &tile.target, &mut tile.scratch)
            } else {
                unit::relax::<T, U>(self.lab.level(), drive, self.units.nodes(l, drive.len()), &mut row[layer.clone()])
            };
            tile.changes[j] = tile.changes[j].max_magnitude(change.to_f64());
        }
    }

    /// Moves a complex layer; returns the largest change of a real or imaginary part.
    fn move_complex(
        &self,
        r: usize,
        is_output: bool,
        drive: (&[T], &[T]),
        state: (&mut [T], &mut [T]),
        target: &[T],
    ) -> T {
        let (re, im) = state;
        let (old_re, old_im) = (re.to_vec(), im.to_vec());
        if is_output {
            let beta = match self.plan.boundary(r % self.phases) {
                Boundary::Nudged(beta) => beta,
                // No method forces outputs beside a complex nudge.
                Boundary::Free | Boundary::Forced(_) => Complex::ZERO,
                Boundary::Clamped(_) => return T::ZERO,
            };
            self.plan.loss.nudge_complex(drive, target, beta, (re, im));
        } else {
            for (k, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
                let a = Complex::new(drive.0[k].to_f64(), drive.1[k].to_f64());
                let s = match self.net.physics {
                    Physics::Hopfield(Activation::Tanh) => a.tanh(),
                    Physics::Hopfield(Activation::Logistic) => ((-a).exp() + 1.0).inv(),
                    // Not holomorphic: methods refuse it before it comes to this.
                    Physics::Hopfield(Activation::HardSigmoid) | Physics::Resistive { .. } => Complex::ZERO,
                };
                (*re, *im) = (T::from_f64(s.re), T::from_f64(s.im));
            }
        }
        let change =
            |new: &[T], old: &[T]| new.iter().zip(old).fold(T::ZERO, |m, (&new, &old)| m.max_magnitude(new - old));
        change(re, &old_re).max_magnitude(change(im, &old_im))
    }
}
