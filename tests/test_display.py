"""What results look like in notebooks, and the picture of every system."""

import io

import numpy as np
import pnncore as pnn
import pytest
from pnncore import layers, systems
from pnncore._display import html_table, text_table
from pnncore._progress import ProgressLine
from pnncore.elements import Current, Resistor, VoltageSource

pytest.importorskip("matplotlib")


class Bowl(systems.EnergySystem):
    """E = |s - a x|² / 2."""

    def energy(self, params, x, s):
        return 0.5 * ((s - params["a"] * x) ** 2).sum(axis=1)

    def state_gradient(self, params, x, s):
        return s - params["a"] * x

    def param_gradient(self, params, x, s, weights):
        return {"a": -((s - params["a"] * x) * x * weights[:, None]).sum(axis=0)}


def optics():
    light = [layers.Encode(), layers.MZIMesh(4), layers.Detect()]
    return systems.Stack([layers.Linear(4, 4), *light, layers.Linear(4, 2)], seed=0)


def ladder():
    found = [Resistor("in0", "a"), Resistor("a", "0"), Resistor("in1", "a"), Resistor("a", "c")]
    found += [Resistor("in2", "c"), Resistor("in3", "c"), VoltageSource("c", "0", 0.0)]
    ends = {"inputs": [f"in{k}" for k in range(4)], "outputs": ["a", Current("c", "0")]}
    return systems.Circuit(found, **ends)


SYSTEMS = {
    "Hopfield": lambda: systems.Hopfield([4, 8, 2], seed=0),
    "DeepResistive": lambda: systems.DeepResistive([4, 8, 2], seed=0),
    "Circuit": ladder,
    "Flow": lambda: systems.Flow(
        [("in0", "a"), ("in1", "a"), ("in2", "b"), ("in3", "b"), ("a", "b"), ("b", "0")],
        inputs=["in0", "in1", "in2", "in3"],
        outputs=["a", "b"],
        ground="0",
    ),
    "Elastic": lambda: systems.Elastic(
        [[0, 0], [1, 0], [0.5, 1], [1.5, 1]],
        [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]],
        inputs=[(1, 0), (1, 1), (2, 0), (2, 1)],
        outputs=[(3, 0), (3, 1)],
        fixed=[0],
    ),
    "HamiltonianChain": lambda: systems.HamiltonianChain(8, n_in=4, n_out=2, time=2.0),
    "Stack": optics,
    "Instrument": lambda: systems.Instrument(lambda x: x[:, :2], 4, 2, dtype="float32"),
    "Bowl": lambda: Bowl(n_in=4, n_states=4, n_out=4, params={"a": np.ones(4)}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_picture(name):
    net = SYSTEMS[name]()
    x = 0.02 * np.arange(4)
    figure = net.plot(x)
    assert figure._repr_png_().startswith(b"\x89PNG")
    axes = figure.axes[0]
    assert axes.get_title()
    # Drawn into a figure of the user's, it is that.
    own = type(figure)().subplots(1, 2)
    assert net.plot(x, own[1]) is own[1].figure
    assert not own[0].has_data()


def test_pictures_of_layers_name_them_and_share_one_scale():
    figure = optics().plot([0.1, 0.2, 0.3, 0.4])
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [
        "inputs\n(4)",
        "Linear\n(4)",
        "Encode",
        "MZIMesh",
        "Detect\n(4)",
        "Linear\n(2)",
    ]
    assert len({strip.get_clim() for strip in axes.collections}) == 1
    assert [text.get_text() for text in axes.texts] == ["a field:\nnot measured"] * 2


def test_all_kinds_have_a_picture_in_this_test():
    assert set(systems.System.kinds()) <= set(SYSTEMS)


ROWS = [["", "score", "why"], ["a<b", "1.5", "so & so"], ["long name", "-20", ""]]


def test_tables():
    assert text_table(ROWS, left=("why",)).splitlines() == [
        "           score  why",
        "a<b          1.5  so & so",
        "long name    -20",
    ]
    html = html_table(ROWS, left=("why",))
    assert "a&lt;b" in html
    assert "so &amp; so" in html
    assert html.count("<tr>") == 3
    assert html.count("text-align: right") == 3


def test_results_are_tables_in_notebooks():
    x, y, x_test, y_test = pnn.data.iris()
    net = systems.Hopfield([4, 6, 3], seed=0)
    method = pnn.methods.EquilibriumPropagation()
    trainer = pnn.Trainer(net, method, pnn.optim.SGD(0.1), seed=0)
    history = trainer.fit(x, y, epochs=12, validation=(x_test, y_test))
    assert history._repr_html_().count("<tr>") == 11
    assert "validation" in history._repr_html_()
    assert history.plot()._repr_png_().startswith(b"\x89PNG")
    found = pnn.compare(net, {"ours": method}, (x, y, x_test, y_test), passes=30)
    assert "ours" in found._repr_html_()
    assert repr(found) == str(found)
    table = pnn.audit_all(only="Flow")
    assert table._repr_html_().count("<tr>") == len(table.rows) + 1
    assert repr(table) == str(table)


def test_notebooks_see_progress():
    stream = io.StringIO()
    line = ProgressLine(10, stream=stream)
    line.update(5, "half")
    assert not stream.getvalue()
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    line = ProgressLine(10, stream=notebook)
    line.update(5, "half")
    assert "50 %  half" in notebook.getvalue()


def test_what_does_not_settle_has_no_energy():
    settled = SYSTEMS["HamiltonianChain"]().settle([[0.1, 0.2, 0.3, 0.4]])
    assert np.isnan(settled.energy).all()
    assert np.isnan(settled.residual).all()
    assert repr(settled).endswith("residual <= -)")
