"""Where the peers live: one virtual environment for each Python peer, one folder of packages for each Node peer.

All below ``.venv/bench/``, from the pinned versions in ``requirements/`` and ``npm/``.
Made once; a stamp, written last, tells what they were made from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
PLACE: Final = ROOT / ".venv" / "bench"
INSTALL_TIMEOUT_S: Final = 600
COMMON: Final = HERE / "requirements" / "common.txt"


class NotInstalled(Exception):
    """An environment could not be made; the message says why, for people."""


def python_command(peer: str, flags: Sequence[str]) -> list[str]:
    """Runs a Python peer's module with these flags, in its environment, which is made first if need be."""
    requirements = HERE / "requirements" / f"{peer}.txt"
    folder = PLACE / peer
    python = folder / "bin" / "python"
    stamp = _digest(COMMON, requirements, Path(sys.executable).resolve())
    if not _is_stamped(folder, stamp):
        shutil.rmtree(folder, ignore_errors=True)
        _run(f"{peer}: virtual environment", [sys.executable, "-m", "venv", folder], ROOT)
        install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        _run(f"{peer}: packages", [python, *install, "-r", COMMON, "-r", requirements], ROOT)
        _stamp(folder, stamp)
    module = f"benchmarks.peers.{peer.replace('-', '_')}_peer"
    return [str(python), "-m", module, *flags]


def node_command(peer: str, folder_name: str) -> list[str]:
    """Runs a Node peer's module with its packages, which are installed first if need be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotInstalled("node or npm is not on PATH")
    manifest, lock = (HERE / "npm" / folder_name / name for name in ("package.json", "package-lock.json"))
    folder = PLACE / "node" / folder_name
    stamp = _digest(manifest, lock)
    if not _is_stamped(folder, stamp):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(manifest, folder)
        shutil.copy(lock, folder)
        # Not `npm ci`: it wants the optional packages of every platform in the lock, and some registries lack a few.
        _run(f"{peer}: packages", [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        _stamp(folder, stamp)
    return [node, str(HERE / "peers" / f"{folder_name}.mjs"), str(folder / "package.json")]


def _run(what: str, command: Sequence[str | Path], folder: Path) -> None:
    print(f"setting up {what}", file=sys.stderr, flush=True)
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{what}: {error}") from error
    if result.returncode:
        end = "\n".join((result.stdout + result.stderr).strip().splitlines()[-12:])
        raise NotInstalled(f"{what}: exit code {result.returncode}: {end}")


def _digest(*paths: Path) -> str:
    """Of the files' names and, unless they are programs, of what is in them."""
    seen = hashlib.sha256()
    for path in paths:
        seen.update(os.fsencode(path.name if path.suffix else path))
        if path.suffix:
            seen.update(path.read_bytes())
    return seen.hexdigest()


def _is_stamped(folder: Path, stamp: str) -> bool:
    file = folder / "bench.stamp"
    return file.is_file() and file.read_text() == stamp


def _stamp(folder: Path, stamp: str) -> None:
    (folder / "bench.stamp").write_text(stamp)
