"""Layers of a `pnncore.systems.Stack`: what signals pass through.

Every layer has a twin, the model with known derivatives. Its hardware may differ: `mismatch` puts
its constants off, relatively, and `noise` is the standard deviation of what each measurement of an
output adds. Both are set for the whole stack, or layer by layer.
"""

from typing import Any

from pnncore.analog import AnalogIO, Wires
from pnncore.layers._base import Layer
from pnncore.layers._coupled_modes import CoupledModes
from pnncore.layers._crossbar import Crossbar
from pnncore.layers._custom import Custom
from pnncore.layers._detect import Detect
from pnncore.layers._detector_regions import DetectorRegions
from pnncore.layers._diffraction import Diffraction
from pnncore.layers._encode import Encode, image_ports
from pnncore.layers._fibre import Fibre
from pnncore.layers._linear import Linear
from pnncore.layers._microring_bank import MicroringBank
from pnncore.layers._mzi_mesh import MZIMesh
from pnncore.layers._normalize import Normalize
from pnncore.layers._pendula import Pendula
from pnncore.layers._plate import Plate
from pnncore.layers._pointwise import ElectroOptic, Logistic, ReLU, SaturableAbsorber, Tanh
from pnncore.layers._programmed import ProgrammedLayer
from pnncore.layers._second_harmonic import SecondHarmonic
from pnncore.layers._speckle import Speckle
from pnncore.layers._svd_layer import SVDLayer
from pnncore.layers._transistor import TransistorCircuit
from pnncore.layers._waveguide import Waveguide

__all__ = [
    "AnalogIO",
    "CoupledModes",
    "Crossbar",
    "Custom",
    "Detect",
    "DetectorRegions",
    "Diffraction",
    "ElectroOptic",
    "Encode",
    "Fibre",
    "Layer",
    "Linear",
    "Logistic",
    "MZIMesh",
    "MicroringBank",
    "Normalize",
    "Pendula",
    "Plate",
    "ProgrammedLayer",
    "ReLU",
    "SVDLayer",
    "SaturableAbsorber",
    "SecondHarmonic",
    "Speckle",
    "Tanh",
    "TransistorCircuit",
    "Waveguide",
    "Wires",
    "from_config",
    "image_ports",
]


def from_config(config: dict[str, Any]) -> Layer:
    """Return the layer of a `Layer.to_config` dictionary."""
    kind, settings = Layer.chosen(config)
    return kind.restore(settings)
