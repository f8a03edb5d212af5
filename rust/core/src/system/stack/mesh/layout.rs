//! Layouts of meshes: which waveguides meet in which interferometer, and where light goes in and
//! comes out.

use std::ops::Range;

use serde::Deserialize;

use crate::{Error, Result, memory};

/// How the interferometers of a mesh lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshLayout {
    /// The rectangle of Clements et al., Optica 3, 1460 (2016): n columns.
    Clements,
    /// The triangle of Reck et al., Phys. Rev. Lett. 73, 58 (1994): 2 n - 3 columns.
    Reck,
    /// The triangle and its mirror image above it (Shokraneh et al., Opt. Express 28, 23495, 2020):
    /// n - 2 more waveguides, which begin and end dark, and paths that all pass about as many
    /// interferometers.
    Diamond,
    /// Any map as U S V^H by its singular values: a rectangle, an interferometer in every mode as
    /// attenuator, whose other waveguide begins dark and ends nowhere, and a rectangle.
    Svd,
}

/// The waveguides of a mesh, and the pairs of them that meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// How many waveguides there are.
    pub waveguides: usize,
    /// Those that light goes into.
    pub inputs: Range<usize>,
    /// Those that it comes out of.
    pub outputs: Range<usize>,
    /// The upper and the lower waveguide of every interferometer, in the order in which light meets
    /// them: column by column, each from above.
    pub pairs: Vec<[u32; 2]>,
    /// Where each column ends among them.
    columns: Vec<usize>,
}

impl MeshLayout {
    /// Refuses sizes that the layout does not have.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(self, inputs: usize, outputs: usize) -> Result<()> {
        let least = if self == Self::Svd { 1 } else { 2 };
        if self != Self::Svd && inputs != outputs {
            return Err(Error::Config(format!(
                "a mesh has as many outputs as inputs, got {inputs} and {outputs}"
            )));
        }
        for (name, modes) in [("n", inputs), ("n_out", outputs)] {
            if modes < least {
                return Err(Error::Config(format!(
                    "{name} must be at least {least} modes, got {modes}"
                )));
            }
        }
        if inputs.max(outputs) > u32::MAX as usize / 4 {
            return Err(Error::Config(format!("a mesh of {inputs} modes is too large")));
        }
        Ok(())
    }

    /// How many interferometers there are.
    pub fn interferometers(self, inputs: usize, outputs: usize) -> u128 {
        let triangle = |n: usize| memory::product(&[n, n.saturating_sub(1)]) / 2;
        match self {
            Self::Clements | Self::Reck => triangle(inputs),
            Self::Diamond => memory::product(&[inputs - 1, inputs - 1]),
            Self::Svd => triangle(inputs) + triangle(outputs) + inputs.min(outputs) as u128,
        }
    }

    /// Where light goes, for sizes that were checked.
    pub fn circuit(self, inputs: usize, outputs: usize) -> Circuit {
        match self {
            Self::Clements => Circuit::of(inputs, 0..inputs, rectangle(inputs)),
            Self::Reck => Circuit::of(inputs, 0..inputs, triangle(inputs, 0)),
            Self::Diamond => {
                let dark = inputs - 2;
                Circuit::of(2 * inputs - 2, dark..dark + inputs, triangle(inputs, dark))
            }
            Self::Svd => {
                let (first, least) = (inputs.max(outputs), inputs.min(outputs));
                let attenuators = (0..least).map(|k| [k, first + k]).collect();
                let mut columns = rectangle(inputs);
                columns.push(attenuators);
                columns.extend(rectangle(outputs));
                let circuit = Circuit::of(first + least, 0..inputs, columns);
                Circuit { outputs: 0..outputs, ..circuit }
            }
        }
    }
}

/// Columns that begin in turn at the first and at the second waveguide.
fn rectangle(modes: usize) -> Vec<Vec<[usize; 2]>> {
    let column = |c: usize| (c % 2..modes - 1).step_by(2).map(|top| [top, top + 1]).collect();
    (0..modes).map(column).collect()
}

/// Columns of a triangle whose long row is that of waveguide `mirror`, with as many shorter rows
/// above it, its mirror image, as there are waveguides above.
fn triangle(modes: usize, mirror: usize) -> Vec<Vec<[usize; 2]>> {
    let last = 2 * (modes - 2);
    let column = |c: usize| {
        let rows = (0..mirror + modes - 1).filter(|&row| {
            let away = row.abs_diff(mirror);
            c >= away && c + away <= last && (c - away).is_multiple_of(2)
        });
        rows.map(|row| [row, row + 1]).collect()
    };
    (0..=last).map(column).collect()
}

impl Circuit {
    /// A circuit of columns, with the same waveguides for inputs and outputs.
    fn of(waveguides: usize, ends: Range<usize>, columns: Vec<Vec<[usize; 2]>>) -> Self {
        let mut end = 0;
        let ended = |column: &Vec<[usize; 2]>| {
            end += column.len();
            end
        };
        Self {
            waveguides,
            inputs: ends.clone(),
            outputs: ends,
            columns: columns.iter().map(ended).collect(),
            pairs: columns.concat().into_iter().map(|pair| pair.map(|w| w as u32)).collect(),
        }
    }

    /// The interferometers of every column.
    pub fn columns(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = [0].into_iter().chain(self.columns.iter().copied());
        starts.zip(self.columns.iter().copied()).map(|(start, end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_their_interferometers_and_no_waveguide_meets_two_at_once() {
        for layout in [MeshLayout::Clements, MeshLayout::Reck, MeshLayout::Diamond] {
            for modes in 2..9 {
                let circuit = layout.circuit(modes, modes);
                assert_eq!(circuit.pairs.len() as u128, layout.interferometers(modes, modes));
                assert_eq!(circuit.outputs.len(), modes);
                for column in circuit.columns() {
                    let mut met: Vec<u32> = circuit.pairs[column].concat();
                    assert!(met.iter().all(|&w| (w as usize) < circuit.waveguides));
                    met.sort_unstable();
                    met.dedup_by(|a, b| a == b);
                    assert_eq!(met.len() % 2, 0, "{layout:?} {modes}");
                }
            }
        }
        let diamond = MeshLayout::Diamond.circuit(4, 4);
        assert_eq!((diamond.waveguides, diamond.inputs.clone()), (6, 2..6));
        assert_eq!(
            diamond.columns().map(|column| column.len()).collect::<Vec<_>>(),
            [1, 2, 3, 2, 1]
        );
    }

    #[test]
    fn maps_that_are_not_square_pass_an_attenuator_in_every_mode_that_is_left() {
        for (inputs, outputs) in [(1, 1), (1, 3), (3, 1), (4, 2), (2, 5), (4, 4)] {
            let circuit = MeshLayout::Svd.circuit(inputs, outputs);
            let wanted = MeshLayout::Svd.interferometers(inputs, outputs);
            assert_eq!(circuit.pairs.len() as u128, wanted, "{inputs} {outputs}");
            let waveguides = inputs.max(outputs) + inputs.min(outputs);
            assert_eq!(circuit.waveguides, waveguides);
            assert!(circuit.pairs.iter().all(|&[a, b]| a < b && (b as usize) < waveguides));
        }
    }
}
