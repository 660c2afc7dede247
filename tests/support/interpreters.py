"""The Python interpreters of this host, to run a program that needs nothing but this project under each of them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from functools import cache
from importlib.metadata import files
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NEEDED: Final = ("attrs", "typing_extensions")
"""What the project imports without any extra, all of it in plain Python that runs on every version."""


@cache
def dev() -> ModuleType:
    """What the Makefile's targets do."""
    script = ROOT / "scripts" / "dev.py"
    specification = importlib.util.spec_from_file_location("dtimer_dev", script)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@cache
def found_pythons() -> dict[str, Path]:
    """By version, those that `make test` would find."""
    return {f"{major}.{minor}": path for (major, minor), path in dev().find_pythons().items()}


def importable(folder: Path) -> str:
    """A value for PYTHONPATH: the project, and in `folder` links to what it needs, without anything else there is."""
    for package in NEEDED:
        for file in files(package) or ():
            top = file.parts[0]
            place = Path(str(file.locate()))
            for _ in file.parts[1:]:
                place = place.parent
            if not top.endswith((".dist-info", "__pycache__", "..")) and not (folder / top).exists():
                (folder / top).symlink_to(place)
    return os.pathsep.join((str(ROOT), str(folder)))


def start(python: Path, program: Path, *arguments: str, pythonpath: str, hash_seed: str) -> subprocess.Popen[str]:
    """Start a program. What it says comes out together with its complaints."""
    environment = os.environ | {
        "PYTHONPATH": pythonpath,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(python), "-W", "error", str(program), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
