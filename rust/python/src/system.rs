//! Systems as Python sees them.

use std::str::FromStr;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn};
use pnncore::Error;
use pnncore::check::check_system;
use pnncore::device::{Device, TileSpec};
use pnncore::runtime::Runtime;
use pnncore::system::System as CoreSystem;
use pnncore::system::circuit::{self, Circuit};
use pnncore::system::elastic::{self, Elastic};
use pnncore::system::hopfield::Activation;
use pnncore::system::layered::Layered;
use pnncore::system::stack::{self, Stack};
use pnncore::system::tiled::Tiled;
use pyo3::prelude::*;

use crate::arrays::{Data, Exclusive, Float, Shared, with_dtype};
use crate::calls::{self, detached, held};
use crate::errors::{OrRaise, exception};
use crate::foreign::{Foreign, Side};
use crate::raised::Raised;
use crate::run::parse;
use crate::user::UserSystem;

/// The physics of a system, without parameters.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct System {
    kind: Kind,
    raised: Raised,
}

enum Kind {
    Layered(Layered),
    Tiled(Box<(Tiled<f32, Layered>, Tiled<f64, Layered>)>),
    Circuit(Box<Circuit>),
    Elastic(Elastic),
    Stack(Box<(Stack<f32>, Stack<f64>)>),
    User(UserSystem),
}

impl System {
    /// A system without Python in it.
    fn of_core(kind: Kind) -> Self {
        Self { kind, raised: Raised::default() }
    }

    /// The system for states of type `T`.
    pub(crate) fn of<T: Float>(&self) -> &dyn CoreSystem<T> {
        match &self.kind {
            Kind::Layered(net) => net,
            Kind::Tiled(nets) => T::tiled(nets),
            Kind::Circuit(circuit) => &**circuit,
            Kind::Elastic(network) => network,
            Kind::Stack(stacks) => T::of(stacks),
            Kind::User(system) => system,
        }
    }

    /// Runs `work` with the GIL released; a signal whose handler raises ends it.
    pub(crate) fn run<R: Send>(&self, py: Python<'_>, work: impl FnOnce() -> Result<R, Error> + Send) -> PyResult<R> {
        detached(py, work)?.map_err(|error| self.raised.take().unwrap_or_else(|| exception(py, &error)))
    }

    /// A runtime that suits the system.
    pub(crate) fn runtime(&self, py: Python<'_>, threads: Option<usize>, seed: u64) -> PyResult<Runtime> {
        // The user's code runs on the calling thread.
        let alone = match &self.kind {
            Kind::Layered(_) | Kind::Tiled(_) | Kind::Circuit(_) | Kind::Elastic(_) => false,
            Kind::Stack(stacks) => stacks.0.is_foreign(),
            Kind::User(_) => true,
        };
        calls::runtime(py, if alone { Some(1) } else { threads }, seed)
    }
}

/// A stack whose foreign layers are these objects.
fn build<T: Float>(
    py: Python<'_>,
    spec: &stack::Spec,
    foreign: &[Option<Bound<'_, PyAny>>],
    raised: &Raised,
) -> PyResult<Stack<T>> {
    let failure = std::cell::Cell::new(None);
    let making = || {
        spec.build_with(|l| -> Result<_, Error> {
            let object = foreign.get(l).and_then(Option::as_ref);
            let object = object.ok_or_else(|| Error::Config(format!("layer {} has no object", l + 1)))?;
            let side = |side| -> Result<Box<dyn stack::Layer<T>>, Error> {
                Foreign::new(object, side, raised).map(|layer| Box::new(layer) as _).map_err(|error| {
                    let text = error.to_string();
                    failure.set(Some(error));
                    Error::Config(text)
                })
            };
            Ok((side(Side::Twin)?, side(Side::Hardware)?))
        })
    };
    held(py, making)?.map_err(|error| failure.take().unwrap_or_else(|| exception(py, &error)))
}

#[pymethods]
impl System {
    /// A layered Hopfield network, its couplings in arrays of cells that are drawn from the seed where there is a tile.
    #[staticmethod]
    fn hopfield(py: Python<'_>, layers: Vec<usize>, activation: &str, tile: Option<&str>, seed: u64) -> PyResult<Self> {
        let activation = Activation::from_str(activation).or_raise(py)?;
        let net = held(py, || Layered::hopfield(&layers, activation))?.or_raise(py)?;
        let Some(tile) = tile else { return Ok(Self::of_core(Kind::Layered(net))) };
        let spec: TileSpec = parse(py, "tile", tile)?;
        let single = held(py, || Tiled::new(net.clone(), &spec, seed))?.or_raise(py)?;
        let double = held(py, || Tiled::new(net, &spec, seed))?.or_raise(py)?;
        Ok(Self::of_core(Kind::Tiled(Box::new((single, double)))))
    }

    /// An electrical circuit.
    #[staticmethod]
    fn circuit(py: Python<'_>, spec: &str) -> PyResult<Self> {
        let spec: circuit::Spec = parse(py, "circuit", spec)?;
        Ok(Self::of_core(Kind::Circuit(Box::new(held(py, || Circuit::new(&spec))?.or_raise(py)?))))
    }

    /// An elastic network.
    #[staticmethod]
    fn elastic(py: Python<'_>, spec: &str) -> PyResult<Self> {
        let spec: elastic::Spec = parse(py, "elastic network", spec)?;
        Ok(Self::of_core(Kind::Elastic(held(py, || Elastic::new(&spec))?.or_raise(py)?)))
    }

    /// A deep resistive network.
    #[staticmethod]
    fn resistive(py: Python<'_>, layers: Vec<usize>, input_gain: f64, device: &str) -> PyResult<Self> {
        let device: Device = parse(py, "device", device)?;
        Ok(Self::of_core(Kind::Layered(Layered::resistive(&layers, input_gain, device).or_raise(py)?)))
    }

    /// A stack of layers; for each that is written in Python, its object.
    #[staticmethod]
    fn stack(py: Python<'_>, spec: &str, foreign: Vec<Option<Bound<'_, PyAny>>>) -> PyResult<Self> {
        let spec: stack::Spec = parse(py, "stack", spec)?;
        let raised = Raised::default();
        let stacks = (build(py, &spec, &foreign, &raised)?, build(py, &spec, &foreign, &raised)?);
        Ok(Self { kind: Kind::Stack(Box::new(stacks)), raised })
    }

    /// What a stack would hold, told without making it: names and shapes of its parameters, and how many numbers
    /// are drawn beside them.
    #[staticmethod]
    #[allow(clippy::type_complexity, reason = "names with shapes, and a number")]
    fn outline_stack(py: Python<'_>, spec: &str) -> PyResult<(Vec<(String, Vec<usize>)>, u64)> {
        let found = parse::<stack::Spec>(py, "stack", spec)?.outline();
        Ok((found.parameters.into_iter().map(|own| (own.name, own.shape)).collect(), found.constants))
    }

    /// A system of the user's own: a `pnncore.systems.EnergySystem`.
    #[staticmethod]
    fn user(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let raised = Raised::default();
        Ok(Self { kind: Kind::User(UserSystem::new(object, &raised)?), raised })
    }

    /// Checks the system in float64: for each check its name, whether it passed, and a message.
    fn check(
        &self,
        py: Python<'_>,
        params: Vec<PyReadonlyArrayDyn<'_, f64>>,
        seed: u64,
    ) -> PyResult<Vec<(&'static str, bool, String)>> {
        let params = params.iter().map(|a| Ok(a.as_array().iter().copied().collect())).collect::<PyResult<Vec<_>>>()?;
        let findings = self.run(py, || check_system(self.of::<f64>(), &params, seed))?;
        Ok(findings.into_iter().map(|f| (f.check, f.passed, f.message)).collect())
    }

    /// The current (samples, elements) through every element of a circuit at its free operating point.
    fn currents<'py>(
        &self,
        py: Python<'py>,
        params: Vec<Bound<'py, PyAny>>,
        x: Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let Kind::Circuit(circuit) = &self.kind else {
            return Err(exception(py, &Error::Capability("only circuits have currents".into())));
        };
        with_dtype!(py, params, T => {
            let core = self.of::<T>();
            let runtime = self.runtime(py, threads, 0)?;
            let arrays = Shared::<T>::new(&params, "every parameter")?;
            let params = arrays.params(py)?;
            core.check_params(&params).or_raise(py)?;
            let data = Data::<T>::new(&x, None)?;
            let batch = data.batch(py, core.inputs(), core.outputs())?;
            let found = self.run(py, || Ok(runtime.enter(|| circuit.currents(&runtime, &params, &batch))))?;
            let rows = batch.len();
            PyArray1::from_vec(py, found).reshape([rows, circuit.elements()])
        })
    }

    /// Name and shape of every parameter, in order.
    fn specs(&self) -> Vec<(String, Vec<usize>)> {
        self.of::<f32>().specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
    }

    /// The sizes of the layers that have states, outputs last.
    fn layers(&self) -> Vec<usize> {
        self.of::<f32>().layout().sizes().to_vec()
    }

    /// The methods that can train the system.
    fn methods(&self) -> Vec<&'static str> {
        pnncore::method::methods_for(self.of::<f32>())
    }

    /// Writes initial parameters.
    fn initialise(&self, py: Python<'_>, params: Vec<Bound<'_, PyAny>>, seed: u64, gain: f64) -> PyResult<()> {
        let runtime = Runtime::new(Some(1), 0).or_raise(py)?;
        with_dtype!(py, params, T => {
            let mut arrays = Exclusive::<T>::new(&params, "every parameter")?;
            let mut slices = arrays.slices(py, "every parameter")?;
            detached(py, || match &self.kind {
                Kind::Layered(net) => net.initialise(&runtime, seed, gain, &mut slices),
                Kind::Tiled(nets) => {
                    let net = <T as Float>::tiled(nets);
                    net.system().initialise(&runtime, seed, gain, &mut slices);
                    net.keep_within(&mut slices);
                }
                Kind::Stack(stacks) => <T as Float>::of(stacks).initialise(seed, &mut slices),
                // These come with their parameters.
                Kind::Circuit(_) | Kind::Elastic(_) | Kind::User(_) => {}
            })?;
        });
        Ok(())
    }
}
