"""Small data sets for training physical neural networks.

Every loader returns ``(x, y, x_test, y_test)``: inputs as float32 rows in [0, 1], and labels as
int64, or outputs of a measured layer.
Only the digits and the irises ship with the package; the other sets are read from a folder, or
downloaded and verified on request. `from_file` reads files of your own. Where the data come from
and under which licence is in ``SOURCES.md`` beside this file.
"""

from pnncore.data._acoustic import acoustic as acoustic
from pnncore.data._files import from_file as from_file
from pnncore.data._idx import read_idx as read_idx
from pnncore.data._optical_digits import optical_digits as optical_digits
from pnncore.data._sets import digits as digits
from pnncore.data._sets import fashion_mnist as fashion_mnist
from pnncore.data._sets import iris as iris
from pnncore.data._sets import mnist as mnist
from pnncore.data._vowels import VOWEL_CLASSES as VOWEL_CLASSES
from pnncore.data._vowels import vowels as vowels

__all__ = [
    "VOWEL_CLASSES",
    "acoustic",
    "digits",
    "fashion_mnist",
    "from_file",
    "iris",
    "mnist",
    "optical_digits",
    "read_idx",
    "vowels",
]
