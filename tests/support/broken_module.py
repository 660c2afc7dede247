"""Imports one module of dtimer from another source than its file. To be used before dtimer is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


class _BrokenLoader(SourceFileLoader):
    """Has the broken source in place of what is on disk, and caches nothing."""

    source = ""

    def get_data(self, path: str) -> bytes:
        return self.source.encode()

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("a broken module has no cached one")


def import_broken(module: str, source: str) -> None:
    """From now on the module is imported from this source, wherever it is imported."""
    assert "dtimer" not in sys.modules, "dtimer was imported too early"

    class BrokenFinder(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if fullname != module:
                return None
            spec = super().find_spec(fullname, path, target)
            assert spec is not None
            assert spec.origin is not None
            spec.loader = _BrokenLoader(fullname, spec.origin)
            spec.loader.source = source
            return spec

    sys.meta_path.insert(0, BrokenFinder)
