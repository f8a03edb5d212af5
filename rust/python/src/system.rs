//! Systems as Python sees them.

use numpy::PyReadonlyArrayDyn;
use pnncore::Error;
use pnncore::check::check_system;
use pnncore::runtime::Runtime;
use pnncore::signal::Signal;
use pnncore::system::stack::{self, Stack};
use pnncore::system::{AnySystem, System as CoreSystem};
use pyo3::prelude::*;

use crate::arrays::{Exclusive, Float, with_dtype};
use crate::calls::{self, detached, held};
use crate::errors::{OrRaise, exception, parse};
use crate::foreign::{Foreign, Side};
use crate::raised::Raised;
use crate::user::UserSystem;

/// The physics of a system, without parameters.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct System {
    physics: AnySystem,
    raised: Raised,
}

impl System {
    /// The system for states of type `T`.
    pub(crate) fn of<T: Float>(&self) -> &dyn CoreSystem<T> {
        T::pick(&self.physics)
    }

    /// The system as a stack of layers.
    pub(crate) fn stack_of<T: Float>(&self, py: Python<'_>) -> PyResult<&Stack<T>> {
        let core = self.of::<T>();
        core.as_stack()
            .ok_or_else(|| Error::Capability(format!("{} has no layers", core.name())))
            .or_raise(py)
    }

    /// Where exceptions of the user's code are kept.
    pub(crate) fn raised(&self) -> &Raised {
        &self.raised
    }

    /// Runs `work` with the GIL released; a signal whose handler raises ends it.
    pub(crate) fn run<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<R, Error> + Send,
    ) -> PyResult<R> {
        detached(py, work)?
            .map_err(|error| self.raised.take().unwrap_or_else(|| exception(py, &error)))
    }

    /// A runtime that suits the system.
    pub(crate) fn runtime(
        &self,
        py: Python<'_>,
        threads: Option<usize>,
        seed: u64,
    ) -> PyResult<Runtime> {
        // The user's code runs on the calling thread.
        let alone = self.of::<f32>().calls_out();
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
            let object =
                object.ok_or_else(|| Error::Config(format!("layer {} has no object", l + 1)))?;
            let side = |side| -> Result<Box<dyn stack::Layer<T>>, Error> {
                Foreign::new(object, side, raised).map(|layer| Box::new(layer) as _).map_err(
                    |error| {
                        let text = error.to_string();
                        failure.set(Some(error));
                        Error::Config(text)
                    },
                )
            };
            // A plain attribute, as that of a twin.
            let is_exact =
                object.getattr("is_exact").is_ok_and(|exact| exact.is_truthy().unwrap_or(false));
            let hardware = if is_exact { None } else { Some(side(Side::Hardware)?) };
            Ok(stack::Parts::new(side(Side::Twin)?, hardware))
        })
    };
    held(py, making)?.map_err(|error| failure.take().unwrap_or_else(|| exception(py, &error)))
}

#[pymethods]
impl System {
    /// A system that is described by data alone, by its name.
    #[staticmethod]
    fn build(py: Python<'_>, name: &str, spec: &str) -> PyResult<Self> {
        let physics = held(py, || AnySystem::build(name, spec))?.or_raise(py)?;
        Ok(Self { physics, raised: Raised::default() })
    }

    /// A stack of layers; for each that is written in Python, its object.
    #[staticmethod]
    fn stack(py: Python<'_>, spec: &str, foreign: Vec<Option<Bound<'_, PyAny>>>) -> PyResult<Self> {
        let spec: stack::Spec = parse(py, "stack", spec)?;
        let raised = Raised::default();
        let single: Stack<f32> = build(py, &spec, &foreign, &raised)?;
        let double: Stack<f64> = build(py, &spec, &foreign, &raised)?;
        Ok(Self { physics: AnySystem::new(single, double), raised })
    }

    /// What a stack would hold, told without making it: names and shapes of its parameters, and how
    /// many numbers are drawn beside them.
    #[staticmethod]
    #[allow(clippy::type_complexity, reason = "names with shapes, and a number")]
    fn outline_stack(py: Python<'_>, spec: &str) -> PyResult<(Vec<(String, Vec<usize>)>, u64)> {
        let found = parse::<stack::Spec>(py, "stack", spec)?.outline().or_raise(py)?;
        Ok((
            found.parameters.into_iter().map(|own| (own.name, own.shape)).collect(),
            found.constants,
        ))
    }

    /// A system of the user's own: a `pnncore.systems.EnergySystem`.
    #[staticmethod]
    fn user(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let raised = Raised::default();
        Ok(Self { physics: AnySystem::same(UserSystem::new(object, &raised)?), raised })
    }

    /// Checks the system in float64: for each check its name, whether it passed, and a message.
    fn check(
        &self,
        py: Python<'_>,
        params: Vec<PyReadonlyArrayDyn<'_, f64>>,
        seed: u64,
    ) -> PyResult<Vec<(&'static str, bool, String)>> {
        let params = params
            .iter()
            .map(|a| Ok(a.as_array().iter().copied().collect()))
            .collect::<PyResult<Vec<_>>>()?;
        let findings = self.run(py, || check_system(self.of::<f64>(), &params, seed))?;
        Ok(findings.into_iter().map(|f| (f.check, f.passed, f.message)).collect())
    }

    /// Name and shape of every parameter, in order.
    fn specs(&self) -> Vec<(String, Vec<usize>)> {
        self.of::<f32>()
            .specs()
            .iter()
            .map(|spec| (spec.name.clone(), spec.shape.clone()))
            .collect()
    }

    /// Name and shape of every array that the system keeps from step to step.
    fn memory(&self) -> Vec<(String, Vec<usize>)> {
        self.of::<f32>()
            .memory()
            .iter()
            .map(|spec| (spec.name.clone(), spec.shape.clone()))
            .collect()
    }

    /// The number of values that a sample is, and whether they are complex amplitudes.
    fn takes(&self) -> (usize, bool) {
        let Signal { steps, width, complex } = self.of::<f32>().takes();
        (steps.saturating_mul(width), complex)
    }

    /// Multiply-adds of the digital layers of a stack per sample.
    fn operations(&self) -> u64 {
        self.of::<f32>().as_stack().map_or(0, stack::Stack::operations)
    }

    /// Of a stack, the last layer of each group, counted from zero: what methods without a chain of
    /// errors take together.
    fn group_ends(&self) -> Vec<usize> {
        let groups = self.of::<f32>().as_stack().map(Stack::groups);
        groups.into_iter().flatten().map(|group| group.end - 1).collect()
    }

    /// Of a stack, what each layer gives for a sample: how many modes or signals.
    fn widths(&self) -> Vec<usize> {
        let stages = self.of::<f32>().as_stack().map(Stack::stages);
        stages
            .into_iter()
            .flatten()
            .map(|stage| stage.twin().gives())
            .map(|signal| signal.steps * signal.width)
            .collect()
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
    fn initialise(
        &self,
        py: Python<'_>,
        params: Vec<Bound<'_, PyAny>>,
        seed: u64,
        gain: f64,
    ) -> PyResult<()> {
        let runtime = Runtime::new(Some(1), 0).or_raise(py)?;
        with_dtype!(py, params, T => {
            let mut arrays = Exclusive::<T>::new(&params, "every parameter")?;
            let mut slices = arrays.slices(py, "every parameter")?;
            detached(py, || self.of::<T>().initialise(&runtime, seed, gain, &mut slices))?;
        });
        Ok(())
    }
}
