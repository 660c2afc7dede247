"""Where the peers live: one virtual environment for each Python peer, one folder of packages for each Node peer.

Another commit of ours has a checkout and an environment of its own.

All below ``.venv/bench/``, from the pinned versions in ``requirements/`` and ``npm/``.
Made once; a stamp, written last, tells what they were made from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.process import Command

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
PLACE: Final = ROOT / ".venv" / "bench"
INSTALL_TIMEOUT_S: Final = 600
COMMON: Final = HERE / "requirements" / "common.txt"


OUR_MODULE: Final = "benchmarks.peers.dtimer_peer"
OUR_REQUIREMENTS: Final = "benchmarks/requirements/dtimer.txt"
"""Where a commit that is compared with has them; one that moves them must go on knowing where they were before."""


class NotInstalled(Exception):
    """An environment could not be made; the message says why, for people."""


def python_command(peer: str, flags: Sequence[str]) -> Command:
    """Runs a Python peer's module with these flags, in its environment, which is made first if need be."""
    python = _python(peer, PLACE / peer, HERE / "requirements" / f"{peer}.txt")
    module = f"benchmarks.peers.{peer.replace('-', '_')}_peer"
    return Command([str(python), "-m", module, *flags], ROOT)


def full_name(commit: str, repository: Path = ROOT) -> str:
    """The hash of a commit that is named in any way git knows.

    Raises:
        NotInstalled: there is none.
    """
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"]
    try:
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()
    except OSError as error:
        raise NotInstalled(f"git cannot be run: {error}") from error
    except subprocess.CalledProcessError as error:
        said = f": {error.stderr.strip()}" if error.stderr.strip() else ""
        raise NotInstalled(f"there is no commit {commit!r} in {repository}{said}") from error


def checkout(commit: str, folder: Path, repository: Path = ROOT) -> None:
    """Lay a commit's files into a folder that is made for them.

    Raises:
        NotInstalled: git cannot.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".zip")
    _run(f"{commit[:10]}: files", ["git", "archive", "--format=zip", f"--output={archive}", commit], repository)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    archive.unlink()


def commit_command(commit: str, flags: Sequence[str]) -> Command:
    """Runs our own module as a commit has it, in an environment with that commit's pins, which is made if need be.

    What all Python peers have, hiredis for one, it has as this working tree pins it: both sides have it, or neither.

    Args:
        commit: its full hash.

    Raises:
        NotInstalled: it cannot be built, or has no such module.
    """
    name = commit[:10]
    place = PLACE / "commits" / commit
    source = place / "source"
    if not _is_stamped(place, commit):
        checkout(commit, source)
        _stamp(place, commit)
    if not (source / OUR_REQUIREMENTS).is_file():
        raise NotInstalled(f"{name} has no {OUR_REQUIREMENTS}, so it cannot be measured")
    python = _python(name, place / "environment", source / OUR_REQUIREMENTS)
    command = Command([str(python), "-m", OUR_MODULE, *flags], source)
    # Processes are started by the hundred, and write no bytecode themselves. What does not compile fails to import.
    _run(f"{name}: bytecode", [python, "-m", "compileall", "-q", "dtimer", "benchmarks/peers"], source)
    _run(f"{name}: a first import", [python, "-c", f"import {OUR_MODULE}"], source, command.environment)
    return command


def _python(peer: str, folder: Path, requirements: Path) -> Path:
    """The interpreter of a virtual environment with these packages."""
    python = folder / "bin" / "python"
    stamp = _digest(COMMON, requirements, Path(sys.executable).resolve())
    if not _is_stamped(folder, stamp):
        shutil.rmtree(folder, ignore_errors=True)
        _run(f"{peer}: virtual environment", [sys.executable, "-m", "venv", folder], ROOT)
        install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        _run(f"{peer}: packages", [python, *install, "-r", COMMON, "-r", requirements], ROOT)
        _stamp(folder, stamp)
    return python


def node_command(peer: str, folder_name: str) -> Command:
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
    return Command([node, str(HERE / "peers" / f"{folder_name}.mjs"), str(folder / "package.json")], ROOT)


def _run(what: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    print(f"setting up {what}", file=sys.stderr, flush=True)
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
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
