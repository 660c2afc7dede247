"""Imports dtimer with one module broken, and says which scenarios of a rule fail on the simulator.

Reads the module's name, its source and the rule from standard input, before anything of dtimer is imported.
"""

from __future__ import annotations

import json
import sys

from support.broken_module import import_broken

JOB: dict[str, str] = json.load(sys.stdin)

if __name__ == "__main__":
    import_broken(JOB["module"], JOB["source"])
    from dtimer.cli.targets import SimTarget
    from support.judge import first_failure

    print(json.dumps(first_failure(JOB["rule"], SimTarget())))
