//! Light that real signals are put on.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::trig::sin_cos;
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::settings::at_least_one;
use crate::signal::Signal;
use crate::{Error, Result};

/// What of the light carries a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The amplitude: E = x.
    Amplitude,
    /// The phase: E = exp(i x).
    Phase,
}

/// The description of a field that carries real signals, one per port.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeSpec {
    /// The number of signals; `None`: as many as arrive.
    pub inputs: Option<usize>,
    /// What carries them.
    pub carrier: Carrier,
    /// The number of modes; `None`: as many as signals.
    pub modes: Option<usize>,
    /// The modes of each signal, counted from zero; empty: one for each, the first ones.
    pub ports: Vec<Vec<usize>>,
    /// Modes of constant amplitude, with that; all others are dark.
    pub references: Vec<(usize, f64)>,
}

/// Signals, modes, and which mode carries which signal.
struct Ports {
    inputs: usize,
    modes: usize,
    carried: Vec<(usize, usize)>,
}

impl EncodeSpec {
    /// One mode for each signal.
    pub fn new(inputs: Option<usize>, carrier: Carrier) -> Self {
        Self { inputs, carrier, modes: None, ports: Vec::new(), references: Vec::new() }
    }

    fn ports(&self, site: &Site) -> Result<Ports> {
        let inputs = self.inputs.map_or_else(|| site.width("Encode"), Ok)?;
        at_least_one(&[("n_in", inputs)])?;
        let modes = self.modes.unwrap_or(inputs);
        let refuse = |text: String| Err(Error::Config(text));
        let carried: Vec<(usize, usize)> = if self.ports.is_empty() {
            (0..inputs).map(|signal| (signal, signal)).collect()
        } else {
            let own = self.ports.iter().enumerate();
            own.flat_map(|(signal, ports)| ports.iter().map(move |&port| (port, signal))).collect()
        };
        if !self.ports.is_empty() && self.ports.len() != inputs {
            return refuse(format!(
                "ports must name modes of {inputs} signals, got {}",
                self.ports.len()
            ));
        }
        if let Some(signal) = self.ports.iter().position(Vec::is_empty) {
            return refuse(format!("ports must name a mode of every signal, got none of {signal}"));
        }
        let mut taken = vec![false; modes];
        let references = self.references.iter().map(|&(port, _)| ("reference", port));
        for (name, port) in carried.iter().map(|&(port, _)| ("ports", port)).chain(references) {
            match taken.get_mut(port) {
                None => {
                    return refuse(format!(
                        "{name} must name modes from 0 to {}, got {port}: give modes, the number \
                         of all",
                        modes.wrapping_sub(1)
                    ));
                }
                Some(true) => {
                    return refuse(format!(
                        "mode {port} carries more than one signal or reference"
                    ));
                }
                Some(taken) => *taken = true,
            }
        }
        if self.references.iter().any(|(_, amplitude)| !amplitude.is_finite()) {
            return refuse("every amplitude of reference must be finite".into());
        }
        Ok(Ports { inputs, modes, carried })
    }
}

impl LayerSpec for EncodeSpec {
    const KIND: &'static str = "encode";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let Ports { inputs, modes, .. } = self.ports(site)?;
        let constants = if site.is_mismatched() { inputs as u128 } else { 0 };
        Ok(LayerOutline {
            constants,
            ..LayerOutline::new(Signal::real(inputs), Signal::complex(modes))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let Ports { inputs, modes, carried } = self.ports(site)?;
        let references = self.references.iter();
        let references = references.map(|&(port, amplitude)| (port, T::from_f64(amplitude)));
        Ok(Parts::of(
            Encode {
                carrier: self.carrier,
                modes,
                gains: vec![T::ONE; inputs],
                carried,
                references: references.collect(),
            },
            site,
        ))
    }
}

/// E = x, or E = exp(i x), in the modes of signals. In hardware each modulator answers to a
/// multiple of x, its gain.
#[derive(Debug, Clone)]
struct Encode<T> {
    carrier: Carrier,
    modes: usize,
    /// Modes, each with its signal.
    carried: Vec<(usize, usize)>,
    gains: Vec<T>,
    references: Vec<(usize, T)>,
}

impl<T: Real> Encode<T> {
    fn inputs(&self) -> usize {
        self.gains.len()
    }

    /// The real and imaginary parts of every row of fields.
    fn parts<'a>(&self, fields: &'a mut [T]) -> impl Iterator<Item = (&'a mut [T], &'a mut [T])> {
        let modes = self.modes;
        fields.chunks_exact_mut(2 * modes).map(move |row| row.split_at_mut(modes))
    }
}

impl<T: Real> Layer<T> for Encode<T> {
    fn name(&self) -> &'static str {
        "Encode"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs())
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.modes)
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let n = self.inputs();
        let mut driven = context.scratch.zeros(n);
        let (mut sin, mut cos) = (context.scratch.zeros(n), context.scratch.zeros(n));
        for ((re, im), x) in self.parts(y).zip(x.chunks_exact(n)) {
            let gained = x.iter().zip(&self.gains).map(|(&x, &gain)| gain * x);
            driven.iter_mut().zip(gained).for_each(|(driven, own)| *driven = own);
            re.fill(T::ZERO);
            im.fill(T::ZERO);
            self.references.iter().for_each(|&(port, amplitude)| re[port] = amplitude);
            match self.carrier {
                Carrier::Amplitude => {
                    self.carried.iter().for_each(|&(port, k)| re[port] = driven[k]);
                }
                Carrier::Phase => {
                    sin_cos(context.level, &driven, &mut sin, &mut cos);
                    for &(port, k) in &self.carried {
                        (re[port], im[port]) = (cos[k], sin[k]);
                    }
                }
            }
        }
        Ok(())
    }

    fn vjp(
        &self,
        _context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        _gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let n = self.modes;
        let rows = record.y.chunks_exact(2 * n).zip(dy.chunks_exact(2 * n));
        for (dx, (field, dy)) in dx.chunks_exact_mut(self.inputs()).zip(rows) {
            dx.fill(T::ZERO);
            for &(port, k) in &self.carried {
                dx[k] += self.gains[k]
                    * match self.carrier {
                        Carrier::Amplitude => dy[port],
                        Carrier::Phase => dy[n + port] * field[port] - dy[port] * field[n + port],
                    };
            }
        }
        Ok(())
    }

    fn jvp(
        &self,
        _context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        _along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        let n = self.modes;
        let rows = dx.chunks_exact(self.inputs()).zip(record.y.chunks_exact(2 * n));
        for ((re, im), (dx, field)) in self.parts(dy).zip(rows) {
            re.fill(T::ZERO);
            im.fill(T::ZERO);
            for &(port, k) in &self.carried {
                let change = self.gains[k] * dx[k];
                (re[port], im[port]) = match self.carrier {
                    Carrier::Amplitude => (change, T::ZERO),
                    Carrier::Phase => (-change * field[n + port], change * field[port]),
                };
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        Box::new(Self { gains: factors(self.inputs(), mismatch, random, group), ..self.clone() })
    }
}
