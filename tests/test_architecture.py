"""The tree shows the architecture, and imports point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dtimer
import dtimer_conformance

PACKAGES = {"dtimer": Path(dtimer.__file__).parent, "dtimer_conformance": Path(dtimer_conformance.__file__).parent}

# What a part may never import; each line is a promise of docs/explanation/architecture.md.
FORBIDDEN = {
    "dtimer.limits": ("dtimer.",),
    "dtimer.outcomes": ("dtimer.",),
    "dtimer.values": ("dtimer.semantics", "dtimer.protocol", "dtimer.node", "dtimer.sim", "dtimer.backends"),
    "dtimer.semantics": ("dtimer.protocol", "dtimer.node", "dtimer.sim", "dtimer.backends", "dtimer.timer", "asyncio"),
    "dtimer.protocol": ("dtimer.semantics", "dtimer.node", "dtimer.sim", "dtimer.backends", "dtimer.timer"),
    "dtimer.node": ("dtimer.semantics", "dtimer.sim", "dtimer.backends", "dtimer.timer", "redis"),
    "dtimer.timer": ("dtimer.semantics", "dtimer.sim", "dtimer.backends", "redis"),
    "dtimer.sim": ("dtimer.node", "dtimer.backends", "dtimer.timer", "redis"),
    "dtimer.backends": ("dtimer.node", "dtimer.sim", "dtimer.timer", "dtimer.semantics"),
    "dtimer_conformance": ("dtimer.node", "dtimer.backends", "redis"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports_of(path: Path) -> set[str]:
    """All modules that a file names in an import outside `if TYPE_CHECKING`, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part.rstrip('.')}.")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part: str) -> None:
    """A rule that could reach a store, or a node that knew which store it has, would soon do so."""
    paths = {name: path for name, path in modules().items() if within(name, part)}
    assert paths, f"there is no {part} any more"

    wrong = [
        f"{name} imports {imported}"
        for name, path in paths.items()
        for imported in imports_of(path)
        for forbidden in FORBIDDEN[part]
        if within(imported, forbidden) and not within(imported, part)
    ]

    assert not wrong


def test_the_virtual_time_loop_knows_nothing_of_timers() -> None:
    """It runs any asyncio code, and must not behave differently for ours."""
    known = ("dtimer.sim.loop", "dtimer.sim.chance", "dtimer.sim.errors")
    paths = {name: path for name, path in modules().items() if within(name, "dtimer.sim.loop")}

    assert paths
    for name, path in paths.items():
        ours = {imported for imported in imports_of(path) if within(imported, "dtimer")}
        assert all(any(within(imported, part) for part in known) for imported in ours), name


def test_only_the_redis_backend_and_the_command_import_redis() -> None:
    """Whoever brings another backend needs no redis."""
    users = {
        name for name, path in modules().items() if any(within(imported, "redis") for imported in imports_of(path))
    }

    assert users
    assert all(within(name, "dtimer.backends.redis") for name in users)


def test_importing_dtimer_imports_neither_redis_nor_pytest() -> None:
    """Tests start fast, and an application without Redis does without its driver."""
    code = "import sys, dtimer; print(*sorted({'redis', 'pytest', 'hypothesis', 'rich', 'orjson'} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout

    assert loaded.strip() == ""


def test_the_backends_come_by_name_when_they_are_asked_for() -> None:
    from dtimer.backends.redis import RedisBackend
    from dtimer.sim import SimBackend

    assert dtimer.RedisBackend is RedisBackend
    assert dtimer.SimBackend is SimBackend
    assert set(dtimer.__all__) <= {*dir(dtimer), "RedisBackend", "SimBackend"}
    with pytest.raises(AttributeError, match="Nonsense"):
        dtimer.Nonsense  # noqa: B018


def test_the_bare_name_conformance_is_not_importable() -> None:
    """One wheel, two import packages; a name as common as that is left to others."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('conformance') is not None)"

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run([sys.executable, "-P", "-c", code], check=False, env=environment, cwd=Path(__file__).parent)

    assert found.returncode == 0
