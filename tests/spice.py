"""What tests of netlists share: ngspice, and how decks are read."""

import shutil
import subprocess

import numpy as np
import pytest
from pnncore.systems import Circuit

needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed (apt install ngspice)"
)


def ngspice(netlist, nodes, tmp_path):
    """Run ngspice; return the voltages of the nodes."""
    deck = tmp_path / "deck.cir"
    names = " ".join(f"v({node})" for node in nodes)
    control = f".control\nset numdgt=15\nop\nwrdata {tmp_path / 'out'} {names}\n.endc\n.end\n"
    deck.write_text(netlist.replace(".op\n.end\n", control))
    ran = subprocess.run(
        ["ngspice", "-b", deck], capture_output=True, text=True, check=False, timeout=120
    )
    table = tmp_path / "out"
    assert table.exists(), ran.stdout + ran.stderr
    # Every value comes after its abscissa.
    return np.array(table.read_text().split(), dtype=float)[1::2]


def read(deck, trained=None, **settings):
    return Circuit.from_spice(deck, inputs=["in"], outputs=["out"], trained=trained, **settings)
