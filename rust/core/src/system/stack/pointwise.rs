//! Layers that act on each signal by itself: digital activations, and those of optics.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::unit::{Logistic, Nodes, Tanh, relax};
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, Role};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::settings::{at_least_zero, positive};
use crate::signal::Signal;
use crate::{Error, Result};

/// A function of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "function", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Function {
    /// max(z, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-z)).
    Logistic,
    /// An amplitude z after a saturable absorber: z exp(-depth / 2 / (1 + z^2 / saturation)), the
    /// amplitude's form of the transmission exp(-depth / (1 + I / I_sat)).
    SaturableAbsorber {
        /// The optical depth at low intensity.
        depth: f64,
        /// The intensity that halves it.
        saturation: f64,
    },
    /// An amplitude z of which a part drives its own modulator: sqrt(1 - tap) z cos(gain z^2 / 2 +
    /// bias / 2), the transmission of the electro-optic activation of Williamson et al. (2020),
    /// without its common phase.
    ElectroOptic {
        /// The phase per intensity, in radians.
        gain: f64,
        /// The phase at rest, in radians.
        bias: f64,
        /// The fraction of power that is tapped off.
        tap: f64,
    },
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Relu => "ReLU",
            Self::Tanh => "Tanh",
            Self::Logistic => "Logistic",
            Self::SaturableAbsorber { .. } => "SaturableAbsorber",
            Self::ElectroOptic { .. } => "ElectroOptic",
        }
    }

    fn check(self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        match self {
            Self::SaturableAbsorber { depth, saturation } => {
                at_least_zero("depth", depth)?;
                positive("saturation", saturation)?;
            }
            Self::ElectroOptic { gain, bias, tap } => {
                if !(gain.is_finite() && bias.is_finite()) {
                    return fail(format!("gain and bias must be finite, got {gain} and {bias}"));
                }
                if !(0.0..1.0).contains(&tap) {
                    return fail(format!("tap must be a fraction in [0, 1), got {tap}"));
                }
            }
            Self::Relu | Self::Tanh | Self::Logistic => {}
        }
        Ok(())
    }

    /// The value and the slope at z.
    fn at(self, z: f64) -> (f64, f64) {
        match self {
            Self::Relu => {
                if z > 0.0 {
                    (z, 1.0)
                } else {
                    // NaN is not above zero, and must survive.
                    (z * 0.0, 0.0)
                }
            }
            Self::Tanh => {
                let y = z.tanh();
                (y, 1.0 - y * y)
            }
            Self::Logistic => {
                let y = 1.0 / (1.0 + (-z).exp());
                (y, y * (1.0 - y))
            }
            Self::SaturableAbsorber { depth, saturation } => {
                let rest = 1.0 / (1.0 + z * z / saturation);
                let record = (-0.5 * depth * rest).exp();
                (z * record, record * (1.0 + depth * rest * rest * z * z / saturation))
            }
            Self::ElectroOptic { gain, bias, tap } => {
                let (sin, cos) = (0.5 * (gain * z * z + bias)).sin_cos();
                let left = (1.0 - tap).sqrt();
                (left * z * cos, left * (cos - gain * z * z * sin))
            }
        }
    }
}

/// The description of a function of each of however many signals arrive.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointwiseSpec {
    /// Which function.
    pub function: Function,
}

impl LayerSpec for PointwiseSpec {
    const KIND: &'static str = "pointwise";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.function.check()?;
        let signal = Signal::real(site.width(self.function.name())?);
        Ok(LayerOutline::new(signal, signal))
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Pointwise::new(self.function, site.width(self.function.name())?)?, site))
    }
}

/// y_j = f(z_j); with a mismatch m, f((1 + m) z + m z^2 / 2).
#[derive(Debug, Clone)]
pub struct Pointwise {
    function: Function,
    width: usize,
    mismatch: f64,
}

impl Pointwise {
    /// A function of each of `width` signals.
    ///
    /// # Errors
    /// [`Error::Config`] for constants out of range.
    pub fn new(function: Function, width: usize) -> Result<Self> {
        function.check()?;
        Ok(Self { function, width, mismatch: 0.0 })
    }

    fn at(&self, z: f64) -> (f64, f64) {
        let m = self.mismatch;
        let (y, slope) = self.function.at((1.0 + m) * z + 0.5 * m * z * z);
        (y, slope * (1.0 + m + m * z))
    }
}

impl<T: Real> Layer<T> for Pointwise {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn takes(&self) -> Signal {
        Signal::real(self.width)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.width)
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        match self.function {
            Function::Relu if self.mismatch == 0.0 => {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x < T::ZERO { T::ZERO } else { x });
            }
            Function::Tanh if self.mismatch == 0.0 => {
                relax::<T, Tanh>(context.level, x, Nodes::default(), y);
            }
            Function::Logistic if self.mismatch == 0.0 => {
                relax::<T, Logistic>(context.level, x, Nodes::default(), y);
            }
            _ => y.iter_mut().zip(x).for_each(|(y, x)| *y = T::from_f64(self.at(x.to_f64()).0)),
        }
        Ok(())
    }

    fn vjp(
        &self,
        _given: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        _gradient: &mut [Vec<T>],
    ) -> Result<()> {
        if dx.is_empty() {
            return Ok(());
        }
        match self.function {
            Function::Relu if self.mismatch == 0.0 => {
                for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(record.x) {
                    *dx = if x > T::ZERO { dy } else { T::ZERO };
                }
            }
            Function::Tanh if self.mismatch == 0.0 => {
                for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(record.y) {
                    *dx = dy * (T::ONE - y * y);
                }
            }
            Function::Logistic if self.mismatch == 0.0 => {
                for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(record.y) {
                    *dx = dy * (y * (T::ONE - y));
                }
            }
            _ => {
                for ((dx, &dy), x) in dx.iter_mut().zip(dy).zip(record.x) {
                    *dx = dy * T::from_f64(self.at(x.to_f64()).1);
                }
            }
        }
        Ok(())
    }

    /// The Jacobian is symmetric.
    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        _along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        self.vjp(context, record, dx, dy, &mut [])
    }

    fn mismatched(&self, mismatch: f64, _random: Philox, _group: u32) -> Box<dyn Layer<T>> {
        Box::new(Self { mismatch, ..self.clone() })
    }

    fn role(&self) -> Role {
        Role::Pointwise
    }
}
