"""Twins: models with known derivatives, of instruments that have none.

An instrument with a twin can be trained by every method of a `pnncore.systems.Stack`; physics-aware
training takes signals from the instrument and derivatives from the twin.
"""

from pnncore.instruments._twin import Analytic as Analytic
from pnncore.instruments._twin import Twin as Twin
from pnncore.systems._layer_twin import LayerTwin as LayerTwin
from pnncore.twins._fit import Fit as Fit
from pnncore.twins._fit import fit as fit
from pnncore.twins._fitted import FittedTwin as FittedTwin
from pnncore.twins._quality import Quality as Quality
from pnncore.twins._quality import TwinMonitor as TwinMonitor
from pnncore.twins._quality import quality as quality
