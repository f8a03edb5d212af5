"""Figures in the documents: each has the command that gives it, and is what that command prints.

Commands run with ``make slow``; those of hours only where PNNCORE_FIGURES is ``long``.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pnncore as pnn
import pytest

ROOT = Path(__file__).parents[1]
STORED = tomllib.loads((Path(__file__).parent / "figures.toml").read_text(encoding="utf-8"))
COMMANDS = {one["run"]: one for one in STORED["commands"]}
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
FIGURE = re.compile(r"(\d[\d.]*) (?:±|\+-)\s*(\d[\d.]*)")


def text_of(document: str) -> str:
    return " ".join((ROOT / document).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("run", COMMANDS)
def test_documents_have_the_figures_and_their_command(run: str) -> None:
    named = [document for document in DOCUMENTS if run in text_of(document)]
    assert named, f"no document names {run}"
    assert (ROOT / shlex.split(run)[1]).is_file()
    for documents, _, value, *spread in COMMANDS[run]["figures"]:
        for document in documents:
            figure = " ± ".join([value, *spread])
            assert figure in text_of(document), (document, figure)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_figures_with_deviations_have_a_command(document: str) -> None:
    known = {(value, spread) for where, value, spread in STORED["constants"] if where == document}
    for command in COMMANDS.values():
        known |= {
            (figure[2], figure[3])
            for figure in command["figures"]
            if document in figure[0] and len(figure) == 4
        }
    found = {(value, spread.rstrip(".")) for value, spread in FIGURE.findall(text_of(document))}
    assert found <= known, f"{document}: no command in figures.toml gives {found - known}"


@pytest.mark.slow
@pytest.mark.parametrize("run", COMMANDS)
def test_commands_print_the_figures(
    run: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = COMMANDS[run]
    if "hours" in command and os.environ.get("PNNCORE_FIGURES") != "long":
        pytest.skip(f"takes {command['hours']} h: set PNNCORE_FIGURES=long")
    if "data" in command:
        monkeypatch.setenv("PNNCORE_DATA", str(request.getfixturevalue("data_dir")))
    script = [sys.executable, str(ROOT / shlex.split(run)[1]), *shlex.split(run)[2:]]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for _, line, value, *spread in command["figures"]:
        lines = done.stdout.splitlines()
        # The last word of a training, where no line begins with it.
        printed = [one for one in lines if one.startswith(f"{line} ")]
        printed = printed or [one for one in reversed(lines) if line in one]
        assert printed, f"{line} is not in:\n{done.stdout}"
        rest = printed[0].partition(line)[2]
        found = float(re.findall(r"\d+\.\d+", rest)[0])
        allowed = 0.51 * 10.0 ** -len(value.partition(".")[2])
        if pnn._core.info()["simd"] != command["simd"]:
            # Seeds give other figures on other instruction sets; deviations are those of a few.
            several = [6 * float(own) for own in spread] or [0.1 * float(value)]
            allowed = max(allowed, *several, 0.02 * float(value))
        assert abs(found - float(value)) <= allowed, (
            f"{line}: {found}, and {value} in the documents"
        )
