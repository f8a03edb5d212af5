"""What published crossbar simulators take for the cases of `crossbar.py`, where they are installed.

``pip install --no-deps badcrossbar`` (and sigfig and pathvalidate) is enough without its plots. On
Python 3.11, ``pip install torch==2.10.0`` and ``pip install --no-deps aihwkit==1.1.0`` (and scipy,
tqdm and requests) go together. Functions return None where the package is not there.
"""

import importlib.util
import itertools
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any


def milliseconds(call: Callable[[], Any], times: int = 30) -> float:
    """Return the time of the fastest call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


def _aihwkit(threads: int | None) -> Any:
    """Return torch with so many threads (None: one per processor), or None where a package is
    missing."""
    if importlib.util.find_spec("aihwkit") is None or importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(threads if threads is not None else len(os.sched_getaffinity(0)))
    return torch


def nodes(g: Any, x: Any) -> float | None:
    """Return the milliseconds that badcrossbar takes for one vector of voltages."""
    if importlib.util.find_spec("badcrossbar") is None:
        return None
    with warnings.catch_warnings():
        # Its plots are not needed.
        warnings.simplefilter("ignore")
        import badcrossbar
    logging.disable(logging.INFO)
    return milliseconds(lambda: badcrossbar.compute(x[:1].T, 1 / g, 1.0), 2)


def update(x: Any, d: Any, slots: int) -> float | None:
    """Return the milliseconds of a pulsed update with these rows, on one thread."""
    torch = _aihwkit(1)
    if torch is None:
        return None
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import ConstantStepDevice, SingleRPUConfig, UpdateParameters

    own = UpdateParameters(desired_bl=slots, update_bl_management=False, update_management=False)
    config = SingleRPUConfig(device=ConstantStepDevice(), update=own)
    tile = AnalogLinear(x.shape[1], d.shape[1], bias=False, rpu_config=config).analog_module
    tile.set_learning_rate(0.001 * slots)
    rows, errors = torch.from_numpy(x), torch.from_numpy(d)
    return milliseconds(lambda: tile.update(rows, errors), 8 if slots == 1 else 2)


def read(x: Any, n_out: int, threads: int | None) -> float | None:
    """Return the milliseconds of a read of these rows, with converters, output noise and absmax
    noise management."""
    torch = _aihwkit(threads)
    if torch is None:
        return None
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import ConstantStepDevice, IOParameters, SingleRPUConfig

    own = IOParameters(inp_res=1 / 126, out_res=1 / 510, out_noise=0.06, out_bound=12.0)
    config = SingleRPUConfig(device=ConstantStepDevice(), forward=own)
    layer = AnalogLinear(x.shape[1], n_out, bias=False, rpu_config=config)
    rows = torch.from_numpy(x)
    with torch.no_grad():
        return milliseconds(lambda: layer(rows), 8)


def epoch(name: str, x: Any, y: Any, sizes: list[int]) -> float | None:
    """Return the seconds of an epoch of these samples in batches of 64, on one thread."""
    torch = _aihwkit(1)
    if torch is None:
        return None
    from aihwkit.nn import AnalogLinear, AnalogSequential
    from aihwkit.optim import AnalogSGD
    from aihwkit.simulator import configs

    cell = configs.ConstantStepDevice()
    compounds = {
        "v1": configs.TransferCompound,
        "v2": configs.BufferedTransferCompound,
        "agad": configs.DynamicTransferCompound,
    }
    if name == "float":
        config: Any = configs.FloatingPointRPUConfig()
    elif name in compounds:
        # A line per sample, as here.
        own = compounds[name](
            unit_cell_devices=[cell, cell], transfer_every=1.0, units_in_mbatch=False
        )
        config = configs.UnitCellRPUConfig(device=own)
    else:
        config = configs.SingleRPUConfig(device=cell)
    layers: list[Any] = []
    for n, m in itertools.pairwise(sizes):
        layers += [AnalogLinear(n, m, rpu_config=config), torch.nn.Sigmoid()]
    net = AnalogSequential(*layers[:-1])
    optimizer = AnalogSGD(net.parameters(), lr=0.1)
    optimizer.regroup_param_groups(net)
    loss = torch.nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> None:
        for first in range(0, len(rows), 64):
            optimizer.zero_grad()
            loss(net(rows[first : first + 64]), labels[first : first + 64]).backward()
            optimizer.step()

    return milliseconds(run, 2) / 1e3
