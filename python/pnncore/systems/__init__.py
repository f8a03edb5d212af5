"""Physical systems."""

from pnncore.systems._base import System as System
from pnncore.systems._hopfield import Hopfield as Hopfield
