"""The last bit of what every method leaves in every system, pinned for the machines where it
was."""

import json

import digests
import pnncore as pnn
import pytest
from helpers import run_python

SIMD = ("portable", "avx2", "avx512")


@pytest.mark.parametrize("simd", SIMD)
def test_nothing_has_changed_to_the_last_bit(simd):
    if simd not in pnn._core.info()["simd_available"]:
        pytest.skip(f"this machine does not have {simd}")
    code = """
        import json, digests
        print(json.dumps([digests.machine(), digests.digests()]))
    """
    machine, found = json.loads(run_python(code, simd, timeout=300, PNNCORE_SIMD=simd))
    if machine not in (pinned := digests.pinned()):
        pytest.skip(f"nothing is pinned for {machine}: see tests/digests.py")
    # What is new is pinned with the next run of `digests.py --pin` on such a machine.
    changed = [name for name, digest in pinned[machine].items() if found.get(name) != digest]
    assert not changed, f"{len(changed)} of {len(found)} digests differ: {sorted(changed)[:20]}"


def test_all_methods_leave_something_of_their_own():
    """Digests tell methods apart: what trains moves parameters, and no two methods move them
    alike."""
    found = digests.digests(lambda name: name.startswith("Hopfield tanh, "))
    assert len(found) >= 20
    for precision in (0, 1):
        assert len({value.split()[precision] for value in found.values()}) == len(found)
