"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the data sets that the package does not ship, or skip the test."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    named = os.environ.get("PNNCORE_DATA")
    for folder in (Path(named).expanduser(), beside) if named else (beside,):
        if folder.is_dir():
            return folder
    pytest.skip(
        "no data sets: set PNNCORE_DATA to a folder with mnist/, fashion-mnist/ and vowel/, or put it at "
        "../shared/data beside the repository (pnncore.data.mnist(download=True) fetches MNIST)"
    )
