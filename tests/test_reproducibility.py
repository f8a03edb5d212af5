"""Same seed, same bits: any number of threads, in pieces or in one go; any instruction set to
rounding."""

import json

import numpy as np
import pnncore as pnn
import pytest
from helpers import copy_of, flat, make_batch, make_net, parameter_bytes, run_python
from pnncore import Settling, methods, optim
from pnncore.methods import EquilibriumPropagation

THREADS = (1, 2, 3, 8)
# Large enough that the core does use threads: it works alone below a million multiply-adds.
SIZES = [
    ([17, 33, 7, 5], 1607),
    ([64, 128, 10], 250),
    ([13, 41, 3], 2311),
    ([31, 300, 17], 101),
    ([9, 6], 20_011),
]
METHODS = {
    "centered": EquilibriumPropagation(),
    "one-sided": EquilibriumPropagation(variant="one-sided", sign="random"),
    "holomorphic": EquilibriumPropagation(variant="holomorphic", points=3, beta=0.3),
    "cross-entropy": EquilibriumPropagation(loss="cross-entropy"),
    "synchronous": EquilibriumPropagation(settling=Settling(sweeps=(20, 5), order="synchronous")),
    "explicit": EquilibriumPropagation(settling=Settling(sweeps=(20, 5), output_update="explicit")),
    "frequency": methods.FrequencyPropagation(),
    "agnostic": methods.AgnosticEquilibriumPropagation(),
    "contrastive": methods.ContrastiveLearning(),
    "coupled": methods.CoupledLearning(variant="centered"),
    "implicit": methods.ImplicitDifferentiation(),
    "recurrent": methods.RecurrentBackprop(steps=5),
}


def activation_for(method):
    return "tanh" if getattr(method, "variant", "") == "holomorphic" else "hard-sigmoid"


@pytest.mark.parametrize(("layers", "samples"), SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_settling_on_any_number_of_threads(layers, samples, dtype):
    net = make_net(layers, dtype=dtype)
    x, y = make_batch(net, samples)

    def digest(threads):
        free, nudged = net.settle(x, threads=threads), net.settle(x, y, beta=0.2, threads=threads)
        arrays = [
            a for f in (free, nudged) for a in (*f.states, f.energy, f.residual, f.sweeps, f.status)
        ]
        return b"".join(a.tobytes() for a in [*arrays, net.predict(x, threads=threads)])

    assert len({digest(threads) for threads in THREADS}) == 1


@pytest.mark.parametrize(("layers", "samples"), SIZES[:3], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_gradients_on_any_number_of_threads(layers, samples, name):
    method = METHODS[name]
    net = make_net(layers, activation_for(method), dtype="float32")
    x, y = make_batch(net, samples)
    found = {
        flat(method.gradient(net, x, y, seed=2, step=3, threads=threads)).tobytes()
        for threads in THREADS
    }
    assert len(found) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [optim.SGD(0.05), optim.SGD(0.02, momentum=0.9, weight_decay=0.01), optim.Adam(0.002)],
    ids=repr,
)
@pytest.mark.parametrize(("layers", "samples"), SIZES[:3], ids=str)
def test_training_on_any_number_of_threads(layers, samples, optimizer, dtype, tmp_path):
    files = set()
    for threads in THREADS:
        net = make_net(layers, dtype=dtype)
        x, y = make_batch(net, samples)
        trainer = pnn.Trainer(
            net,
            EquilibriumPropagation(),
            optimizer,
            batch_size=(samples + 1) // 2,
            seed=5,
            threads=threads,
        )
        trainer.fit(x, y, epochs=2, validation=(x[:50], y[:50]))
        trainer.save(tmp_path / "run.pnn")
        files.add((tmp_path / "run.pnn").read_bytes())
    assert len(files) == 1


def test_number_of_threads_from_the_environment():
    code = """
        import pnncore as pnn
        print(pnn._core.info()["threads"])
        net = pnn.systems.Hopfield([64, 128, 10], seed=0)
        x, y, *_ = pnn.data.digits()
        method = pnn.methods.EquilibriumPropagation()
        pnn.Trainer(net, method, pnn.optim.SGD(0.1), batch_size=300, seed=0).fit(x, y, epochs=1)
        print(net.params["W1"].tobytes().hex())
    """
    one, three = (run_python(code, PNNCORE_NUM_THREADS=n).split() for n in "13")
    assert (one[0], three[0]) == ("1", "3")
    assert one[1] == three[1]


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5", "", "1025"])
def test_bad_number_of_threads_in_the_environment(bad):
    code = """
        import numpy as np, pnncore as pnn
        net = pnn.systems.Hopfield([3, 2], seed=0)
        try:
            net.predict(np.zeros((1, 3), np.float32))
        except pnn.errors.ConfigError as error:
            assert "PNNCORE_NUM_THREADS must be a whole number from 1 to 1024" in str(error), error
            print("refused")
        net.predict(np.zeros((1, 3), np.float32), threads=2)
    """
    assert run_python(code, PNNCORE_NUM_THREADS=bad).split() == ["refused"]


@pytest.mark.parametrize("layers", [[17, 33, 7, 5], [64, 128, 10]], ids=str)
def test_a_sample_does_not_see_its_neighbours(layers):
    net = make_net(layers, dtype="float32")
    x, y = make_batch(net, 1000)
    whole, outputs = net.settle(x, y, beta=0.2, threads=3), net.predict(x, threads=2)
    for rows in (
        slice(0, 1),
        slice(3, 500),
        slice(501, 1000),
        slice(None, None, -1),
        slice(5, None, 7),
    ):
        part = net.settle(x[rows], y[rows], beta=0.2)
        for a, b in zip(part.states, whole.states, strict=True):
            np.testing.assert_array_equal(a, b[rows])
        np.testing.assert_array_equal(net.predict(x[rows]), outputs[rows])


@pytest.mark.parametrize("offset", range(0, 64, 4))
def test_the_place_in_memory_does_not_matter(offset):
    net = make_net([17, 33, 7, 5], dtype="float32")
    x, y = make_batch(net, 20)
    moved = copy_of(net)
    for name, array in moved.params.items():
        room = np.empty(array.nbytes + 64, np.uint8)
        moved.params[name] = (
            room[offset : offset + array.nbytes].view(np.float32).reshape(array.shape)
        )
        moved.params[name][...] = array
    room = np.empty(x.nbytes + 64, np.uint8)
    shifted = room[offset : offset + x.nbytes].view(np.float32).reshape(x.shape)
    shifted[...] = x
    for system, inputs in ((net, x), (moved, shifted)):
        pnn.Trainer(system, EquilibriumPropagation(), optim.SGD(0.1), batch_size=6, seed=0).fit(
            inputs, y, epochs=2
        )
    assert parameter_bytes(net) == parameter_bytes(moved)


class StopAt(pnn.Callback):
    """Stops after some steps in all."""

    def __init__(self, step):
        self.left = step

    def on_step(self, trainer):
        self.left -= 1
        if self.left == 0:
            trainer.stop()


def make_trainer(method, optimizer, seed=7, **settings):
    net = make_net([17, 33, 7, 5], activation_for(method), dtype="float32")
    return pnn.Trainer(net, method, optimizer, batch_size=16, seed=seed, **settings), *make_batch(
        net, 100
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [1, 3, 7, 10])
def test_stopped_saved_and_resumed_is_as_if_undisturbed(name, stop, tmp_path):
    optimizer = optim.Adam(0.002, schedule=optim.ExponentialDecay(0.9))
    whole, x, y = make_trainer(METHODS[name], optimizer)
    whole.fit(x, y, epochs=3, validation=(x, y))
    whole.save(tmp_path / "whole.pnn")

    first, *_ = make_trainer(METHODS[name], optimizer, callbacks=[StopAt(stop)])
    first.fit(x, y, epochs=3, validation=(x, y))
    assert (first.epoch, first.step) == divmod(stop, 7)
    first.save(tmp_path / "part.pnn")
    second = pnn.Trainer.load(tmp_path / "part.pnn")
    assert (second.epoch, second.step) == (first.epoch, first.step)
    second.fit(x, y, epochs=3 - second.epoch, validation=(x, y))
    second.save(tmp_path / "resumed.pnn")
    assert parameter_bytes(second.system) == parameter_bytes(whole.system)
    assert (tmp_path / "resumed.pnn").read_bytes() == (tmp_path / "whole.pnn").read_bytes()


def test_in_pieces_is_as_in_one_go(tmp_path):
    for optimizer in (
        optim.SGD(0.05),
        optim.SGD([0.05, 0.02, 0.01], momentum=0.9),
        optim.Adam(0.01),
    ):
        files = []
        for pieces in ([6], [1, 2, 3], [1] * 6):
            trainer, x, y = make_trainer(METHODS["one-sided"], optimizer)
            for epochs in pieces:
                trainer.fit(x, y, epochs=epochs, validation=(x, y))
            trainer.save(tmp_path / "run.pnn")
            files.append((tmp_path / "run.pnn").read_bytes())
        assert files[0] == files[1] == files[2]


def test_the_speed_of_the_machine_does_not_matter(tmp_path, monkeypatch):
    # The core works for some time between two looks at the clock: where that ends is chance.
    files = set()
    for seconds in (10, 0.05, 1e-4, 0):
        monkeypatch.setattr("pnncore.trainer._LEG_SECONDS", seconds)
        trainer, x, y = make_trainer(METHODS["centered"], optim.SGD(0.05))
        trainer.fit(x, y, epochs=3)
        trainer.save(tmp_path / "run.pnn")
        files.add((tmp_path / "run.pnn").read_bytes())
    assert len(files) == 1


def test_seeds():
    a, x, y = make_trainer(METHODS["centered"], optim.SGD(0.05), seed=1)
    b, *_ = make_trainer(METHODS["centered"], optim.SGD(0.05), seed=2)
    c, *_ = make_trainer(METHODS["centered"], optim.SGD(0.05), seed=None)
    for trainer in (a, b, c):
        trainer.fit(x, y, epochs=1)
    assert parameter_bytes(a.system) != parameter_bytes(b.system)
    again, *_ = make_trainer(METHODS["centered"], optim.SGD(0.05), seed=c.seed)
    again.fit(x, y, epochs=1)
    assert parameter_bytes(again.system) == parameter_bytes(c.system)
    assert make_trainer(METHODS["centered"], optim.SGD(0.05), seed=None)[0].seed != c.seed


def test_instruction_sets_agree_to_rounding():
    code = """
        import json, sys, numpy as np, pnncore as pnn
        from helpers import flat, make_batch, make_net
        from test_reproducibility import METHODS, activation_for
        found = {}
        for dtype in ("float32", "float64"):
            for layers in ([17, 33, 7, 5], [19, 50, 10], [6, 3]):
                for activation in ("hard-sigmoid", "tanh", "logistic"):
                    net = make_net(layers, activation, dtype=dtype)
                    x, y = make_batch(net, 21)
                    key = f"{dtype} {layers} {activation} "
                    outputs = net.predict(x, settling=pnn.Settling(sweeps=20))
                    found[key + "outputs"] = outputs.ravel().tolist()
                    for name, method in METHODS.items():
                        if name != "holomorphic" or activation != "hard-sigmoid":
                            tight = pnn.Settling(sweeps=30, order=method.settling.order)
                            config = {**method.to_config(), "settling": tight.to_config()}
                            method = pnn.methods.from_config(config)
                            found[key + name] = flat(method.gradient(net, x, y)).tolist()
        print(json.dumps({"level": pnn._core.info()["simd"], "found": found}))
    """
    levels = pnn._core.info()["simd_available"]
    runs = [json.loads(run_python(code, PNNCORE_SIMD=level)) for level in levels]
    assert [run["level"] for run in runs] == levels
    assert levels[0] == "portable"
    for run in runs[1:]:
        for key, values in run["found"].items():
            expected = runs[0]["found"][key]
            # Gradients are differences of states divided by beta: rounding is amplified by ten or
            # so.
            tolerance = 3e-5 if "float32" in key else 1e-12
            np.testing.assert_allclose(
                values, expected, rtol=tolerance, atol=tolerance, err_msg=f"{run['level']} {key}"
            )


def test_an_unknown_instruction_set_is_refused():
    code = "import pnncore as pnn; print(pnn._core.info()['simd'])"
    code = "import pnncore as pnn; pnn.systems.Hopfield([2, 2], seed=0).predict([[0.0, 0.0]])"
    for wrong in ("mmx", "AVX2"):
        with pytest.raises(AssertionError, match="PNNCORE_SIMD must be one of portable"):
            run_python(code, PNNCORE_SIMD=wrong)
