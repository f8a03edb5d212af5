"""What goes with `pnncore.systems.Instrument`: budgets, reference shots, states, examinations."""

from pnncore.instruments._report import Examination as Examination
from pnncore.instruments._settings import Budget as Budget
from pnncore.instruments._settings import Reference as Reference
from pnncore.instruments._state import State as State
