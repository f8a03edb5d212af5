"""The vowel task: found, and refused where its file is missing, damaged or another's."""

import os
import pickle
import zipfile

import numpy as np
import pytest
from pnncore import data
from pnncore.errors import DataError

pytestmark = pytest.mark.usefixtures("no_surroundings")


# vowels


def vowel_arrays():
    rng = np.random.default_rng(5)
    return {
        "train_dataset_x": rng.uniform(0.2, 1, (210, 12)).astype(np.float32),
        "train_dataset_y": rng.integers(0, 7, 210),
        "test_dataset_x": rng.uniform(0.2, 1, (49, 12)).astype(np.float32),
        "test_dataset_y": rng.integers(0, 7, 49),
    }


def save_vowels(folder, arrays):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "pat_vowels.npz", **arrays)


@pytest.mark.parametrize("below", ["", "vowel"], ids=["direct", "subfolder"])
@pytest.mark.parametrize("origin", ["path", "PNNCORE_DATA", "cache"])
def test_vowels_are_found(tmp_path, monkeypatch, origin, below):
    root = tmp_path / "xdg" / "pnncore" if origin == "cache" else tmp_path / "somewhere"
    arrays = vowel_arrays()
    save_vowels(root / below, arrays)
    if origin == "PNNCORE_DATA":
        monkeypatch.setenv("PNNCORE_DATA", str(root))
    loaded = data.vowels(root if origin == "path" else None)
    for got, want in zip(loaded, arrays.values(), strict=True):
        assert got.dtype == want.dtype
        assert got.flags.writeable
        assert np.array_equal(got, want)


def test_vowels_missing(tmp_path):
    with pytest.raises(DataError) as caught:
        data.vowels(tmp_path)
    for part in (
        "pat_vowels.npz",
        "Looked in",
        str(tmp_path / "vowel"),
        "Physics-Aware-Training",
        "PNNCORE_DATA",
    ):
        assert part in str(caught.value)


class Trap:
    """An object whose unpickling shows."""

    def __reduce__(self):
        return (exec, ("import os; os.environ['PNNCORE_TEST_TRAP'] = 'sprung'",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_dataset_y": None}, "has no array test_dataset_y"),
        ({"train_dataset_x": np.zeros((210, 12))}, "train_dataset_x: expected float32"),
        ({"train_dataset_x": np.zeros((210, 12), np.float16)}, "train_dataset_x: .* got float16"),
        ({"train_dataset_x": np.zeros((210, 12), ">f4")}, "train_dataset_x: .* got >f4"),
        (
            {"train_dataset_x": np.zeros((12, 210), np.float32)},
            r"shape \(210, 12\), got .*\(12, 210\)",
        ),
        ({"train_dataset_x": np.zeros((12, 210), np.float32).T}, "train_dataset_x: expected"),
        (
            {"train_dataset_x": np.zeros((1000, 1000), np.float32)},
            "train_dataset_x: expected .*4000128 bytes",
        ),
        (
            {"train_dataset_x": np.full((210, 12), np.nan, np.float32)},
            "train_dataset_x: expected numbers",
        ),
        (
            {"test_dataset_x": np.full((49, 12), np.inf, np.float32)},
            "test_dataset_x: expected numbers",
        ),
        (
            {"test_dataset_x": np.full((49, 12), -0.1, np.float32)},
            "test_dataset_x: expected numbers",
        ),
        ({"train_dataset_y": np.full(210, 7)}, "train_dataset_y: expected labels 0 to 6"),
        ({"test_dataset_y": np.full(49, -1)}, "test_dataset_y: expected labels 0 to 6"),
        ({"test_dataset_y": np.array([Trap()] * 49, object)}, "test_dataset_y: expected"),
    ],
)
def test_vowels_with_other_arrays(tmp_path, monkeypatch, change, words):
    monkeypatch.delenv("PNNCORE_TEST_TRAP", raising=False)
    arrays = {
        key: array for key, array in {**vowel_arrays(), **change}.items() if array is not None
    }
    save_vowels(tmp_path, arrays)
    with pytest.raises(DataError, match=words):
        data.vowels(tmp_path)
    assert "PNNCORE_TEST_TRAP" not in os.environ


def test_vowels_damaged_file(tmp_path):
    arrays = vowel_arrays()
    save_vowels(tmp_path, arrays)
    file = tmp_path / "pat_vowels.npz"
    good = file.read_bytes()
    for length in [*range(0, len(good), 97), len(good) - 1]:
        file.write_bytes(good[:length])
        with pytest.raises(DataError, match="pat_vowels"):
            data.vowels(tmp_path)
    places = [*range(0, len(good), 31), *range(60), *range(len(good) - 400, len(good))]
    for place in places:
        for mask in (1, 128, 255):
            file.write_bytes(good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :])
            try:
                loaded = data.vowels(tmp_path)
            except DataError:
                continue
            for got, want in zip(loaded, arrays.values(), strict=True):  # a byte that means nothing
                assert np.array_equal(got, want)


def test_vowels_foreign_file(tmp_path):
    file = tmp_path / "pat_vowels.npz"
    for content in (b"", b"text", pickle.dumps(vowel_arrays()), bytes((1 << 20) + 1)):
        file.write_bytes(content)
        with pytest.raises(DataError, match="pat_vowels"):
            data.vowels(tmp_path)
    good = b"{'descr': '<f4', 'fortran_order': False, 'shape': (210, 12), }"
    for version, length, words in (
        (b"\x02\x00", 10080, "version 1.0 of the NPY format, got 2.0"),
        (b"\x01\x00", 10079, "expected 10080 bytes, got 10079"),
        (b"\x01\x00", 10084, "expected 10080 bytes, got 10084"),
    ):
        member = b"\x93NUMPY" + version + len(good).to_bytes(2, "little") + good + bytes(length)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("train_dataset_x.npy", member)
        with pytest.raises(DataError, match=words):
            data.vowels(tmp_path)
    # Headers that no NumPy writes: a shape beyond all memory, another version, no Python at all.
    for header in (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 12), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 300 + b")" * 300 + b"}",
        b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (210, 12), }",
        b"\xff\xfe",
    ):
        for version in (b"\x01\x00", b"\x02\x00", b"\x09\x09"):
            member = (
                b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + bytes(10080)
            )
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("train_dataset_x.npy", member)
            with pytest.raises(DataError, match="pat_vowels"):
                data.vowels(tmp_path)
