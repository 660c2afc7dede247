"""Imports dtimer with one module broken, and says which scenarios of a rule fail on the simulator.

Reads the module's name, its source and the rule from standard input, before anything of dtimer is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

JOB: dict[str, str] = json.load(sys.stdin)


class BrokenLoader(SourceFileLoader):
    """Has the broken source in place of what is on disk, and caches nothing."""

    def get_data(self, path: str) -> bytes:
        return JOB["source"].encode()

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("a broken module has no cached one")


class BrokenFinder(PathFinder):
    """Finds the one module."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != JOB["module"]:
            return None
        spec = super().find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = BrokenLoader(fullname, spec.origin)
        return spec


if __name__ == "__main__":
    sys.meta_path.insert(0, BrokenFinder)
    from dtimer_conformance.targets import SimTarget
    from support.judge import first_failure

    print(json.dumps(first_failure(JOB["rule"], SimTarget())))
