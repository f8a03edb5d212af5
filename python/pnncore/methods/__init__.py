"""Training methods: how a batch becomes a gradient.

A method is plain configuration; the core runs it. `method.gradient(system, x, y)` gives the
gradients that a step of training would use.
"""

from typing import Any

from pnncore._convert import made
from pnncore.methods._base import Method as Method
from pnncore.methods._base import SettlingMethod as SettlingMethod
from pnncore.methods._echo import HamiltonianEcho as HamiltonianEcho
from pnncore.methods._layered import Backprop as Backprop
from pnncore.methods._layered import Collapse as Collapse
from pnncore.methods._layered import DirectFeedbackAlignment as DirectFeedbackAlignment
from pnncore.methods._layered import FeedbackAlignment as FeedbackAlignment
from pnncore.methods._layered import ForwardForward as ForwardForward
from pnncore.methods._layered import ForwardGradient as ForwardGradient
from pnncore.methods._layered import ForwardModeLearning as ForwardModeLearning
from pnncore.methods._layered import InSituBackprop as InSituBackprop
from pnncore.methods._layered import PhysicalLocalLearning as PhysicalLocalLearning
from pnncore.methods._layered import PhysicsAware as PhysicsAware
from pnncore.methods._layered import RidgeReadout as RidgeReadout
from pnncore.methods._outputs import CMAES as CMAES
from pnncore.methods._outputs import SPSA as SPSA
from pnncore.methods._outputs import CoordinateDescent as CoordinateDescent
from pnncore.methods._outputs import EvolutionStrategy as EvolutionStrategy
from pnncore.methods._outputs import FiniteDifference as FiniteDifference
from pnncore.methods._outputs import GeneticAlgorithm as GeneticAlgorithm
from pnncore.methods._outputs import ParameterShift as ParameterShift
from pnncore.methods._outputs import SurrogateOptimization as SurrogateOptimization
from pnncore.methods._own import Experiment as Experiment
from pnncore.methods._own import NewParameters as NewParameters
from pnncore.methods._own import SettledPhases as SettledPhases
from pnncore.methods._settling import (
    AgnosticEquilibriumPropagation as AgnosticEquilibriumPropagation,
)
from pnncore.methods._settling import ContrastiveLearning as ContrastiveLearning
from pnncore.methods._settling import CoupledLearning as CoupledLearning
from pnncore.methods._settling import EquilibriumPropagation as EquilibriumPropagation
from pnncore.methods._settling import FrequencyPropagation as FrequencyPropagation
from pnncore.methods._settling import ImplicitDifferentiation as ImplicitDifferentiation
from pnncore.methods._settling import RecurrentBackprop as RecurrentBackprop
from pnncore.settling import Settling


def from_config(config: dict[str, Any]) -> Method:
    """Return the method of a `Method.to_config` dictionary; `ConfigError` for anything else."""
    kind, settings = Method.chosen(config)
    if "settling" in settings:
        settings["settling"] = Settling.from_config(settings["settling"])
    return made(kind, settings, kind.__name__)
