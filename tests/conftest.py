"""Fixtures shared by all tests."""

import os
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the data sets that the package does not ship, or skip the test."""
    named = os.environ.get("PNNCORE_DATA")
    if named and (folder := Path(named).expanduser()).is_dir():
        return folder
    pytest.skip(
        "no data sets: set PNNCORE_DATA to a folder with mnist/, fashion-mnist/ and vowel/ "
        "(pnncore.data.mnist(download=True) fetches MNIST)"
    )


@pytest.fixture
def no_surroundings(monkeypatch, tmp_path):
    """Hide the user's data and the network."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a test reached for the network: {args}")

    monkeypatch.delenv("PNNCORE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
