"""Imports dtimer with one module broken, and runs seeds of the simulated workload until a checker complains.

Reads the module's name, its source, the options and the number of seeds from standard input;
writes how many seeds it took (None if none showed anything) and the rules of the complaint.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from support.broken_module import import_broken

JOB: dict[str, Any] = json.load(sys.stdin)

if __name__ == "__main__":
    import_broken(JOB["module"], JOB["source"])
    from dtimer.sim.scenario.options import Options
    from dtimer.sim.scenario.runner import run_seed

    found: list[Any] = [None, ""]
    for seed in range(JOB["seeds"]):
        outcome = run_seed(Options.from_json(JOB["options"]), seed, record=False)
        if outcome.violations:
            found = [seed + 1, str(outcome.violations[0])]
            break
    print(json.dumps(found))
