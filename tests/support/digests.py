"""Digests of simulated runs, kept in files that every Python version is held to.

Whoever changes rules, nodes or a workload writes the files anew, by ``make digests``, and the commit shows it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

WRITE = "DTIMER_WRITE_DIGESTS"


def check_digests(path: Path, digests: Mapping[int, str]) -> None:
    """Compare runs, by their seeds, with what is stored; or store them."""
    found = {str(seed): digest for seed, digest in digests.items()}
    if os.environ.get(WRITE):
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))
