"""``python -m dtimer_conformance.state_space``: all small worlds, with counts."""

import sys

from dtimer_conformance.state_space.command import main

sys.exit(main(sys.argv[1:]))
