"""The method for a system where none is given."""

from pnncore.methods._base import Method
from pnncore.methods._echo import HamiltonianEcho
from pnncore.methods._layered import PhysicsAware
from pnncore.methods._outputs import SPSA
from pnncore.methods._settling import EquilibriumPropagation
from pnncore.systems import System


def suited(system: System | None) -> type[Method]:
    """Return the first of these that trains a system; without one, that of the default stack."""
    kinds: list[type[Method]] = [PhysicsAware, EquilibriumPropagation, HamiltonianEcho]
    can = system.methods() if system is not None else [kinds[0].__name__]
    return next((kind for kind in kinds if kind.__name__ in can), SPSA)
