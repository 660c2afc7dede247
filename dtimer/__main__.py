"""``python -m dtimer``."""

import sys

from dtimer.cli import main

if __name__ == "__main__":
    sys.exit(main())
