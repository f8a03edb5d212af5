//! Settling networks of any number of layers: the rows of a tile sweep together.

use num_complex::Complex;
use pnncore_kernels::unit::{self, Unit};
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Real, dot};

use super::tile::{Context, SampleTile};
use super::{Activation, LAYER_VISIT, Physics};
use crate::plan::Boundary;
use crate::settling::Order;
use crate::states::{Outcome, Status};

impl<T: Real> Context<'_, T> {
    /// Any number of layers: the active rows of the tile sweep together, and leave as they are
    /// done.
    pub(super) fn settle_together<U: Unit>(
        &self,
        first: usize,
        active: &mut Vec<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        let layers = self.net.layers();
        // Layers `group`, `group + groups`, ... move at once, from lists made before any of them
        // moved.
        let groups = match self.plan.settling.order {
            Order::Asynchronous => 2,
            Order::Synchronous => 1,
        };
        self.begin_together(active, states, outcomes, tile);
        let accelerated = self.accelerated();
        // Where outputs have been moved to where their boundary wants them, and they move first in
        // a sweep, the layers that move with them have seen nothing of it yet.
        let led = |&r: &usize| self.plan.boundary(r % self.phases) != Boundary::Free;
        let mut skip = accelerated && layers % 2 == 1 && layers > 1 && active.iter().all(led);
        while !active.is_empty() {
            self.list_group(groups - 1, groups, active, states, tile);
            active.iter().for_each(|&r| (tile.changes[r], tile.followed[r]) = (0.0, None));
            for group in 0..groups {
                if group > 0 || !std::mem::take(&mut skip) {
                    self.move_group::<U>(first, group, groups, active, states, tile);
                }
                if group + 1 < groups {
                    if accelerated {
                        self.take_back_raised::<U>(first, active, states, tile);
                    }
                    self.list_group(group, groups, active, states, tile);
                }
            }
            for &r in active.iter() {
                outcomes[r].sweep(tile.changes[r]);
                if U::NODES {
                    let row = &states[r * self.stride..(r + 1) * self.stride];
                    self.see_magnitude(r, [row, &[]], &mut outcomes[r]);
                }
            }
            active.retain(|&r| {
                let row = &mut states[r * self.stride..(r + 1) * self.stride];
                !self.is_done::<U>(first, r, row, &mut outcomes[r], tile)
            });
        }
    }

    /// Makes room for what is known of rows on their way.
    fn begin_together(
        &self,
        active: &[usize],
        states: &[T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        for buffer in [&mut tile.changes, &mut tile.fields] {
            buffer.resize(outcomes.len(), 0.0);
        }
        for buffer in [&mut tile.reached, &mut tile.followed] {
            buffer.clear();
            buffer.resize(outcomes.len(), None);
        }
        for &r in active {
            outcomes[r] = Outcome::default();
            if self.accelerated() {
                self.gather_last(&states[r * self.stride..], &mut tile.last);
                tile.secants.start(r, &tile.last);
            }
        }
    }

    /// After a sweep: whether row `r` is done, and how; otherwise it starts the next one from where
    /// it has been extrapolated to.
    fn is_done<U: Unit>(
        &self,
        first: usize,
        r: usize,
        row: &mut [T],
        outcome: &mut Outcome,
        tile: &mut SampleTile<T>,
    ) -> bool {
        let outputs = self.net.layout.outputs();
        let advance = self.accelerated().then(|| self.extrapolate(r, row, tile));
        if let Some(advance) = advance {
            outcome.ratio = advance.ratio.unwrap_or(0.0);
        }
        let error = |tile: &mut SampleTile<T>| {
            let sample = first + r / self.phases;
            self.output_error(sample, &row[outputs], &mut tile.target, &mut tile.scratch)
        };
        let Some(status) = self.verdict(r, outcome, tile, error) else {
            if advance.is_some_and(|advance| advance.extrapolated) {
                tile.reached[r] = Some(self.energy::<U>(first, r, 1, row, tile));
                self.scatter_last(&tile.last, row);
            }
            return false;
        };
        outcome.status = status;
        if status == Status::Diverged {
            row.fill(T::ZERO);
        }
        true
    }

    /// Lists the non-zeros of layers `group`, `group + groups`, ... of the active rows.
    fn list_group(
        &self,
        group: usize,
        groups: usize,
        active: &[usize],
        states: &[T],
        tile: &mut SampleTile<T>,
    ) {
        (group..self.net.layers())
            .step_by(groups)
            .for_each(|l| self.list_layer(l, active, states, tile));
    }

    /// Moves layers `group`, `group + groups`, ... of the active rows, whose neighbours are listed.
    fn move_group<U: Unit>(
        &self,
        first: usize,
        group: usize,
        groups: usize,
        active: &[usize],
        states: &mut [T],
        tile: &mut SampleTile<T>,
    ) {
        active.iter().for_each(|&r| tile.fields[r] = 0.0);
        for l in (group..self.net.layers()).step_by(groups) {
            self.drive_layer(l, active, tile);
            self.move_layer::<U>(first, l, active, states, tile);
        }
    }

    /// After the first half of a sweep: makes it again from where the sweep before ended, where an
    /// extrapolation raised the energy.
    fn take_back_raised<U: Unit>(
        &self,
        first: usize,
        active: &[usize],
        states: &mut [T],
        tile: &mut SampleTile<T>,
    ) {
        let mut raised = std::mem::take(&mut tile.raised);
        self.take_back::<U>(first, active, states, tile, &mut raised);
        if !raised.is_empty() {
            self.list_group(1, 2, &raised, states, tile);
            self.move_group::<U>(first, 0, 2, &raised, states, tile);
        }
        tile.raised = raised;
    }

    /// Takes the states of layer `l` of the active rows as products take them.
    fn list_layer(&self, l: usize, active: &[usize], states: &[T], tile: &mut SampleTile<T>) {
        let layer = self.net.layout.layer(l);
        let (level, precision) = (self.runtime.level(), self.net.precision);
        poll(active.len() * LAYER_VISIT);
        for (part, signals) in
            tile.signals[l].iter_mut().enumerate().take(if self.complex { 2 } else { 1 })
        {
            let rows = active.iter().map(|&r| {
                let row = &states[r * self.stride + part * self.net.layout.stride()..];
                &row[layer.clone()]
            });
            signals.take(level, precision, layer.len(), rows);
        }
    }

    /// Sums what drives layer `l` of the active rows: biases, the layer before, the layer after.
    fn drive_layer(&self, l: usize, active: &[usize], tile: &mut SampleTile<T>) {
        let (net, level) = (self.net, self.runtime.level());
        let n = net.sizes[l + 1];
        let stride = net.layout.padded(l);
        let neighbours = net.sizes[l] + net.sizes.get(l + 2).copied().unwrap_or(0);
        poll(active.len() * (n * neighbours / 2 + LAYER_VISIT));
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
            let products = &mut tile.products;
            if l > 0 {
                let ahead = self.couplings.ahead(net, self.params, l);
                products.add(level, &tile.signals[l - 1][part], ahead, drives, stride);
            }
            if l + 1 < net.layers() {
                let back = self.couplings.behind(net, l + 1);
                products.add(level, &tile.signals[l + 1][part], back, drives, stride);
            }
        }
    }

    /// Moves layer `l` of the active rows to the minimum that their drives give.
    fn move_layer<U: Unit>(
        &self,
        first: usize,
        l: usize,
        active: &[usize],
        states: &mut [T],
        tile: &mut SampleTile<T>,
    ) {
        let layer = self.net.layout.layer(l);
        let stride = self.net.layout.padded(l);
        let is_output = l + 1 == self.net.layers();
        let accelerated = self.accelerated();
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
                let memory = (&mut tile.scratch[..], &mut tile.nudge);
                self.move_outputs(r, drive, &mut row[layer.clone()], &tile.target, memory)
            } else {
                unit::relax::<T, U>(
                    self.runtime.level(),
                    drive,
                    self.units.nodes(l, drive.len()),
                    &mut row[layer.clone()],
                )
            };
            tile.changes[r] = tile.changes[r].max_magnitude(change.to_f64());
            if accelerated {
                tile.fields[r] += dot(self.runtime.level(), drive, &row[layer.clone()]).to_f64();
            }
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
        let mut left = T::ZERO;
        if is_output {
            let beta = match self.plan.boundary(r % self.phases) {
                Boundary::Nudged(beta) => beta,
                // No method forces outputs beside a complex nudge.
                Boundary::Free | Boundary::Forced(_) | Boundary::Kicked(_) => Complex::ZERO,
                Boundary::Clamped(_) => return T::ZERO,
            };
            left = self.plan.loss.nudge_complex(drive, target, beta, (re, im));
        } else {
            for (k, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
                let a = Complex::new(drive.0[k].to_f64(), drive.1[k].to_f64());
                let s = match self.net.physics {
                    Physics::Hopfield(Activation::Tanh) => a.tanh(),
                    Physics::Hopfield(Activation::Logistic) => ((-a).exp() + 1.0).inv(),
                    // Not holomorphic: methods refuse it before it comes to this.
                    Physics::Hopfield(Activation::HardSigmoid) | Physics::Resistive { .. } => {
                        Complex::ZERO
                    }
                };
                (*re, *im) = (T::from_f64(s.re), T::from_f64(s.im));
            }
        }
        let change = |new: &[T], old: &[T]| {
            new.iter().zip(old).fold(T::ZERO, |m, (&new, &old)| m.max_magnitude(new - old))
        };
        left.max_magnitude(change(re, &old_re)).max_magnitude(change(im, &old_im))
    }
}
