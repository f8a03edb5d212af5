"""Run the command line with ``python -m pnncore``."""

import sys

from pnncore.cli import main

sys.exit(main())
