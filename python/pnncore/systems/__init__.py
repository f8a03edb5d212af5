"""Physical systems."""

from pnncore.systems._base import Outline as Outline
from pnncore.systems._base import System as System
from pnncore.systems._base import from_config as from_config
from pnncore.systems._base import outline as outline
from pnncore.systems._circuit import Circuit as Circuit
from pnncore.systems._elastic import Elastic as Elastic
from pnncore.systems._energy import EnergySystem as EnergySystem
from pnncore.systems._flow import Flow as Flow
from pnncore.systems._hamiltonian_chain import HamiltonianChain as HamiltonianChain
from pnncore.systems._hopfield import Hopfield as Hopfield
from pnncore.systems._instrument import Instrument as Instrument
from pnncore.systems._resistive import DeepResistive as DeepResistive
from pnncore.systems._stack import Stack as Stack
