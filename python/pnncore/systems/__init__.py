"""Physical systems."""

from pnncore.systems._base import System as System
from pnncore.systems._energy import EnergySystem as EnergySystem
from pnncore.systems._hopfield import Hopfield as Hopfield
