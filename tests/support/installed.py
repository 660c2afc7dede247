"""What makes a Python that has dtimer on its path take it for installed, so that its entry points are found.

What this process imports need not be installed, or may be so by an older project file.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def installed_path(site: Path) -> str:
    """A value of PYTHONPATH with all that this process imports; `site` is an empty directory for the pretence."""
    installed = site / "dtimer-0.dist-info"
    installed.mkdir()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    lines: list[str] = []
    for group, names in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: dtimer\nVersion: 0\n")
    # Relative entries would lead elsewhere from another directory.
    return os.pathsep.join([str(site), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
