"""The command line: ``pnncore demo | train | audit | bench | info``."""

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from pnncore import __version__
from pnncore.cli import _audit, _bench, _demo, _info, _train
from pnncore.cli._common import Parser, RawHelp
from pnncore.errors import PnnError

__all__ = ["main"]

_DESCRIPTION = """\
Train physical neural networks: networks whose layers are physics.

start here:
  pnncore demo                  train a network on handwritten digits, and draw it (seconds)
  pnncore train --help          train on your choice of data, network and method
  pnncore info                  what this installation can do
"""


def _parser() -> Parser:
    parser = Parser(prog="pnncore", description=_DESCRIPTION, formatter_class=RawHelp)
    parser.add_argument("--version", action="version", version=f"pnncore {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    for module in (_demo, _train, _audit, _bench, _info):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code.

    0: done. 1: a training diverged, or an audit found something else than expected. 2: bad input,
    with one line on standard error that says what. 130: interrupted by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            parser = _parser()
            if not (sys.argv[1:] if argv is None else argv):
                parser.print_help()
                return 0
            arguments = parser.parse_args(argv)
            code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
        except SystemExit as leaving:  # argparse, after --help and after a usage error
            return leaving.code if isinstance(leaving.code, int) else 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of a pipe left, as in `pnncore info | head -1`
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except (PnnError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except argparse.ArgumentTypeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> Any:
    print(f"warning: {message}", file=sys.stderr)
