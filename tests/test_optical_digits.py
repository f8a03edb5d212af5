"""The optical digits: what is read, and what is refused."""

import numpy as np
import pytest
from pnncore import data
from pnncore.errors import DataError


def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 17, (3823, 64), np.uint8),
        "y_train": rng.integers(0, 10, 3823, np.uint8),
        "x_test": rng.integers(0, 17, (1797, 64), np.uint8),
        "y_test": rng.integers(0, 10, 1797, np.uint8),
    }


def test_pixels_are_shares_of_ink(tmp_path):
    given = arrays()
    np.savez(tmp_path / "optdigits.npz", **given)
    x, y, x_test, y_test = data.optical_digits(tmp_path)
    assert x.dtype == x_test.dtype == np.float32
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(16 * x, given["x_train"])
    assert np.array_equal(16 * x_test, given["x_test"])
    assert np.array_equal(y, given["y_train"])
    assert np.array_equal(y_test, given["y_test"])
    assert data.optical_digits(tmp_path, dtype="float64")[0].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("x_test", 17, "pixels from 0 to 16"), ("y_train", 10, "labels from 0 to 9")],
)
def test_values_out_of_range_are_refused(tmp_path, name, value, message):
    given = arrays()
    given[name][3] = value
    np.savez(tmp_path / "optdigits.npz", **given)
    with pytest.raises(DataError, match=message):
        data.optical_digits(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "optdigits.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="not a NumPy archive"):
        data.optical_digits(tmp_path)
    short = arrays()
    short["x_test"] = short["x_test"][:-1]
    np.savez(tmp_path / "optdigits.npz", **short)
    with pytest.raises(DataError, match="x_test"):
        data.optical_digits(tmp_path)


def test_test_samples_are_the_digits_that_ship(data_dir):
    folder = data_dir / "optdigits"
    if not folder.is_dir():
        pytest.skip("no optical digits: see the message of pnncore.data.optical_digits()")
    x, y, x_test, y_test = data.optical_digits(folder)
    assert np.bincount(y).tolist() == [376, 389, 380, 389, 387, 376, 377, 387, 380, 382]
    assert x.max() == 1
    own_x, own_y, own_x_test, own_y_test = data.digits()
    shipped = sorted(map(bytes, np.concatenate([own_x, own_x_test])))
    assert shipped == sorted(map(bytes, x_test))
    assert np.array_equal(np.bincount(y_test), np.bincount(np.concatenate([own_y, own_y_test])))
