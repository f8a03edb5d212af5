"""Nothing is converted silently: what is no number is refused where it is passed, and named."""

from collections import UserList, deque

import numpy as np
import pnncore as pnn
import pytest
from helpers import Springs
from laboratory import THETA, X, bench, close_all
from pnncore import layers, methods, optim, systems
from pnncore.errors import ConfigError, DataError, HardwareError, JournalError, ShapeError


def masked(part):
    return np.ma.array(part, mask=np.arange(part.size).reshape(part.shape) == 0)


class Foreign:
    """An object that NumPy asks for its array."""

    def __init__(self, answer):
        self.answer = answer

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("wrap", [list, tuple, deque, UserList])
def test_masked_rows_of_any_sequence_are_refused(wrap):
    net = systems.Hopfield([3, 4, 2], seed=0)
    with pytest.raises(DataError, match="x has masked elements"):
        net.predict(wrap([masked(np.ones(3)), np.ones(3)]))


def test_arrays_of_foreign_objects():
    net = systems.Hopfield([3, 4, 2], seed=0)
    np.testing.assert_array_equal(
        net.predict(Foreign(np.ones((2, 3)))), net.predict([[1, 1, 1]] * 2)
    )
    with pytest.raises(DataError, match="x has masked elements"):
        net.predict(Foreign(masked(np.ones((2, 3)))))
    endless = [1.0]
    endless.append(endless)
    deep = 1.0
    for _ in range(5000):
        deep = [deep]
    for wrong in (Foreign(KeyError("no")), Foreign(OSError("no")), endless, deep):
        with pytest.raises(DataError, match="x must be an array of numbers"):
            net.predict(wrong)


@pytest.mark.parametrize("unit", ["", "ns", "s"])
def test_spans_of_time_are_no_numbers(unit):
    span = np.timedelta64(3, unit) if unit else np.timedelta64(3)
    for make in (
        lambda: systems.Hopfield([3, span, 2]),
        lambda: systems.Hopfield([3, 4, 2], seed=span),
        lambda: methods.SPSA(directions=span),
        lambda: methods.EquilibriumPropagation(beta=span),
        lambda: optim.SGD(span),
        lambda: pnn.Trainer(
            systems.Hopfield([3, 4, 2]), methods.SPSA(), optim.SGD(0.1), batch_size=span
        ),
        lambda: bench(retries=span, idempotent=True),
        lambda: layers.AnalogIO(input_bits=span),
    ):
        with pytest.raises(ConfigError):
            make()


def test_labels_that_are_nearly_right_are_told_how_to_be():
    net = systems.Hopfield([3, 4, 2], seed=0)
    x = np.ones((4, 3), np.float32)
    with pytest.raises(ShapeError, match=r"labels are made integers by y.astype\(int\)"):
        net.score(x, np.array([0.0, 1.0, 0.0, 1.0]))
    with pytest.raises(ShapeError, match=r"labels of shape \(4,\) are y\[:, 0\]"):
        net.score(x, np.array([[0], [1], [0], [1]]))


@pytest.mark.parametrize("name", ["energy", "state_gradient", "param_gradient"])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (masked, DataError),
        (lambda a: a.astype(str), DataError),
        (lambda a: a.astype(object), DataError),
        (lambda a: a > 0, DataError),
        (lambda a: a + 1j, DataError),
        (lambda a: None, (DataError, ShapeError)),
    ],
    ids=["masked", "text", "objects", "truth", "complex", "nothing"],
)
def test_what_energies_return_is_numbers(name, spoil, error):
    class Spoilt(Springs):
        pass

    def method(self, *args):
        found = getattr(Springs, name)(self, *args)
        return (
            {key: spoil(value) for key, value in found.items()}
            if isinstance(found, dict)
            else spoil(found)
        )

    setattr(Spoilt, name, method)
    net = Spoilt(n_in=1, n_states=1, n_out=1, params={"k": np.ones(1)})
    with pytest.raises(error, match=rf"Spoilt\.{name}"):
        methods.EquilibriumPropagation().gradient(net, np.ones((2, 1)), np.zeros((2, 1)))


@pytest.mark.parametrize("found", [None, [[1, 2]], 3.0])
def test_gradients_of_parameters_are_dictionaries(found):
    class Spoilt(Springs):
        def param_gradient(self, *args):
            return found

    net = Spoilt(n_in=1, n_states=1, n_out=1, params={"k": np.ones(1)})
    with pytest.raises(
        ShapeError, match=r"Spoilt\.param_gradient must return a dictionary of the parameters"
    ):
        methods.EquilibriumPropagation().gradient(net, np.ones((2, 1)), np.zeros((2, 1)))


def test_errors_of_instruments_have_their_type():
    def fails(x, params):
        raise KeyError("phase")

    with pytest.raises(HardwareError, match="exception: KeyError: 'phase'"):
        bench(fails).predict(X)
    close_all()


def test_retries_without_leave_are_refused():
    with pytest.raises(ConfigError, match="retries need idempotent=True"):
        bench(retries=2)


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args", "a/b", "n" * 300])
def test_journals_export_parameters_of_any_name(tmp_path, name):
    system = systems.Instrument(
        lambda x, params: x * params[name],
        2,
        2,
        params={name: np.ones(2)},
        journal=tmp_path / "shots.pnj",
    )
    system.predict(np.ones((3, 2)))
    system.close()
    pnn.journal.read(tmp_path / "shots.pnj").export(tmp_path / "shots.npz")
    with np.load(tmp_path / "shots.npz") as found:
        assert set(found) == {"x", "y", name}
        np.testing.assert_array_equal(found[name], np.ones((3, 2)))


def test_a_salvaged_journal_without_its_beginning_says_how_to_go_on(tmp_path):
    path, saved = tmp_path / "shots.pnj", tmp_path / "saved.pnj"
    system = bench(journal=path)
    system.predict(X)
    system.close()
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    assert pnn.journal.salvage(path, saved).shots == 1
    with pytest.raises(JournalError, match="open it once with the instrument"):
        pnn.journal.read(saved)
    bench(journal=saved).close()
    assert len(pnn.journal.read(saved)) == 1
    assert set(THETA) <= set(pnn.journal.read(saved).arrays())
