"""No circles of files: what a file takes from others lies below it, in Python and in Rust."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "pnncore"
CRATES = [ROOT / "rust" / name / "src" for name in ("kernels", "core", "python")]


def assert_no_circle(arrows):
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


class TestPython:
    """Imports at run time, those inside functions too; not those for type checkers alone."""

    def test_imports_make_no_circle(self):
        files = {module_of(path): path for path in PACKAGE.rglob("*.py")}
        arrows = {name: imports_of(name, path, files) for name, path in files.items()}
        # The package itself takes from all its modules, and any import of one runs it first.
        arrows.pop("pnncore")
        assert len(arrows) > 80
        assert sum(map(len, arrows.values())) > 300
        assert_no_circle({name: found - {"pnncore"} for name, found in arrows.items()})

    @pytest.mark.parametrize("late", [False, True])
    def test_a_circle_is_seen(self, tmp_path, late):
        for name, other in ("ab", "ba"):
            text = f"from pnncore import {other}\n"
            (tmp_path / f"{name}.py").write_text(f"def f():\n    {text}" if late else text)
        files = {f"pnncore.{name}": tmp_path / f"{name}.py" for name in "ab"}
        with pytest.raises(pytest.fail.Exception, match="pnncore"):
            assert_no_circle({name: imports_of(name, path, files) for name, path in files.items()})


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name, path, files):
    found = set()
    pending = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & files.keys()) or {node.module}
    return (found & files.keys()) - {name}


class TestRust:
    """Uses between the files and folders that lie side by side, at every level of a crate."""

    @pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.parent.name)
    def test_uses_make_no_circle(self, crate):
        arrows = arrows_of(crate)
        assert sum(map(len, arrows.values())) > 20
        assert_no_circle(arrows)

    def test_a_circle_is_seen(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "mod.rs").write_text("mod low;\nmod high;\npub use low::{Low, other};\n")
        (tmp_path / "a" / "low.rs").write_text("use super::high::{self, High};\n")
        (tmp_path / "a" / "high.rs").write_text("use crate::{a::{Low}, b};\n")
        (tmp_path / "b.rs").write_text("")
        arrows = arrows_of(tmp_path)
        assert arrows == {"a": {"b"}, "a/low": {"a/high"}, "a/high": {"a/low"}}
        with pytest.raises(pytest.fail.Exception, match="a/low -> a/high"):
            assert_no_circle(arrows)


def arrows_of(crate):
    texts = {}
    for path in crate.rglob("*.rs"):
        parts = path.relative_to(crate).with_suffix("").parts
        parts = parts[:-1] if parts[-1] in ("mod", "lib") else parts
        texts[parts] = re.split(r"#\[cfg\(test\)\]\nmod ", path.read_text("utf-8"))[0]
    arrows = {}
    for own, text in texts.items():
        for used in paths_of(own, text):
            other = file_of(used, texts)
            pairs = enumerate(zip(own, other, strict=False))
            level = next((k for k, (mine, its) in pairs if mine != its), None)
            if level is not None:
                here, there = ("/".join(file[: level + 1]) for file in (own, other))
                arrows.setdefault(here, set()).add(there)
    return arrows


def paths_of(own, text):
    """Return the paths, from the root of the crate, of all that a file of it uses."""
    found = []
    for tree in re.findall(r"^\s*(?:pub(?:\([a-z]+\))? )?use ([^;]+);", text, re.MULTILINE):
        for path in spread("".join(re.sub(r" as \w+", "", tree).split())):
            first, *rest = path.split("::")
            if first == "crate":
                found.append(tuple(rest))
            elif first in ("super", "self"):
                base = own
                for step in path.split("::"):
                    if step == "super":
                        base = base[:-1]
                found.append((*base, *(s for s in path.split("::") if s not in ("super", "self"))))
    return found


def spread(tree):
    """Return the paths of a tree of uses: a::{b, c::d} is a::b and a::c::d."""
    head, brace, rest = tree.partition("{")
    if not brace:
        return [tree]
    depth, pieces, piece = 0, [], ""
    for letter in rest.removesuffix("}"):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            pieces.append(piece)
            piece = ""
        else:
            piece += letter
    return [path for inside in [*pieces, piece] if inside for path in spread(head + inside)]


def file_of(path, texts):
    """Return the file that defines what a path names, through what folders pass on of theirs."""
    for cut in range(len(path), -1, -1):
        if path[:cut] in texts:
            folder, name = path[:cut], path[cut : cut + 1]
            break
    passed = re.findall(r"^pub(?:\(\w+\))? use (\w+)::([^;]+);", texts[folder], re.MULTILINE)
    for child, names in passed:
        if name and name[0] in re.findall(r"\w+", names) and (*folder, child) in texts:
            return file_of((*folder, child, *path[len(folder) :]), texts)
    return folder
