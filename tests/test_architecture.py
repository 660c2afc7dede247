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
from support.imports import Modules, within

PACKAGES = {"dtimer": Path(dtimer.__file__).parent, "dtimer_conformance": Path(dtimer_conformance.__file__).parent}

# What a part may never import; each line is a promise of docs/explanation/architecture.md. A module keeps the line of
# the innermost part that it lies in.
FORBIDDEN = {
    "dtimer.limits": ("dtimer.",),
    "dtimer.protocol.outcomes": ("dtimer.",),
    "dtimer.protocol.values": (
        "dtimer.semantics",
        "dtimer.protocol.backend",
        "dtimer.node",
        "dtimer.sim",
        "dtimer.backends",
    ),
    "dtimer.semantics": (
        "dtimer.protocol.backend",
        "dtimer.node",
        "dtimer.sim",
        "dtimer.backends",
        "dtimer.timer",
        "asyncio",
    ),
    "dtimer.protocol": ("dtimer.semantics", "dtimer.node", "dtimer.sim", "dtimer.backends", "dtimer.timer"),
    "dtimer.node": ("dtimer.semantics", "dtimer.sim", "dtimer.backends", "dtimer.timer", "redis"),
    "dtimer.timer": ("dtimer.semantics", "dtimer.sim", "dtimer.backends", "redis"),
    "dtimer.sim": ("dtimer.node", "dtimer.backends", "dtimer.timer", "dtimer.sim.scenario", "redis"),
    # The workload of `dtimer sim`: an application that runs on the simulator, as a user's would.
    "dtimer.sim.scenario": ("dtimer.node", "dtimer.backends", "dtimer.semantics", "redis"),
    "dtimer.backends": ("dtimer.node", "dtimer.sim", "dtimer.timer", "dtimer.semantics"),
    "dtimer_conformance": ("dtimer.node", "dtimer.backends", "redis"),
}


@pytest.fixture(scope="module")
def modules() -> Modules:
    return Modules(PACKAGES)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part: str, modules: Modules) -> None:
    """A rule that could reach a store, or a node that knew which store it has, would soon do so.

    Imports count by the module that defines a name: taking `DTimer` from the package's face is importing the timer.
    """
    inner = [other for other in FORBIDDEN if other != part and within(other, part)]
    members = [name for name in modules.within(part) if not any(within(name, other) for other in inner)]
    assert members, f"there is no {part} any more"

    wrong = [
        f"{name} imports {imported}"
        for name in members
        for imported in modules.imports_of(name)
        if any(within(imported, other) for other in FORBIDDEN[part])
    ]

    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        "from ours import Made",
        "from ours.door import Alias",
        "import ours\nours.Made",
        "import ours.door\nours.door.Alias",
        "from ours import door\ndoor.Alias",
        "def later():\n    from ours.defining import Made",
    ],
)
def test_a_name_counts_as_imported_from_the_module_that_defines_it(source: str, tmp_path: Path) -> None:
    for name, text in {
        "__init__": "from ours.door import Alias as Made",
        "door": "from ours.defining import Made as Alias",
        "defining": "class Made: ...",
        "user": source,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)

    assert "ours.defining" in Modules({"ours": tmp_path}).imports_of("ours.user")


def test_a_circle_for_types_is_seen(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("from ours.two import Two")
    (tmp_path / "two.py").write_text("if TYPE_CHECKING:\n    from ours.three import Three")
    (tmp_path / "three.py").write_text("from ours.one import One")
    (tmp_path / "leaf.py").write_text("from ours.one import One")

    assert Modules({"ours": tmp_path}).circles() == [["ours.one", "ours.three", "ours.two"]]


def test_no_two_modules_need_each_other(modules: Modules) -> None:
    """Not for types either: such modules are one idea in two files, and neither can be read alone.

    A circle of the loop is left.
    """
    assert [circle for circle in modules.circles() if not any(within(name, "dtimer.sim.loop") for name in circle)] == []


def test_the_virtual_time_loop_knows_nothing_of_timers(modules: Modules) -> None:
    """It runs any asyncio code, and must not behave differently for ours."""
    known = ("dtimer.sim.loop", "dtimer.sim.rng", "dtimer.sim.errors")
    members = modules.within("dtimer.sim.loop")

    assert members
    for name in members:
        ours = {imported for imported in modules.imports_of(name) if within(imported, "dtimer")}
        assert all(any(within(imported, part) for part in known) for imported in ours), name


def test_only_the_redis_backend_and_the_command_import_redis(modules: Modules) -> None:
    """Whoever brings another backend needs no redis."""
    users = {
        name
        for name in modules.within("dtimer") + modules.within("dtimer_conformance")
        if any(within(imported, "redis") for imported in modules.imports_of(name))
    }

    assert users
    assert all(within(name, "dtimer.backends.redis") for name in users)


def test_only_the_command_imports_what_judges(modules: Modules) -> None:
    """The conformance package is an extra, which running timers does without."""
    users = [
        name
        for name in modules.within("dtimer")
        if any(within(imported, "dtimer_conformance") for imported in modules.imports_of(name))
    ]

    assert users
    assert all(within(name, "dtimer.cli") for name in users)


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


def test_the_author_of_a_backend_imports_the_protocol_and_what_applications_do() -> None:
    """The example shows what a backend needs: ``dtimer.protocol``, and names of the package itself."""
    example = Path(__file__).resolve().parents[1] / "conformance" / "example_backend"
    files = [path for path in example.rglob("*.py") if ".venv" not in path.parts]
    imported = {
        node.module
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and within(node.module, "dtimer")
    }

    assert imported == {"dtimer", "dtimer.protocol"}


# --- parts are whole when they are made --------------------------------------------------------------------

ARGUMENTS_MAX = 7


def _classes(*parts: str) -> list[tuple[str, ast.ClassDef]]:
    """Those of some files and folders of `dtimer`, each with where it is."""
    files = [file for part in parts for file in sorted(PACKAGES["dtimer"].glob(part))]
    assert files
    return [
        (f"{file.name}: {node.name}", node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]


def _function(owner: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == name), None)


def _bases(owner: ast.ClassDef) -> list[str]:
    named = [base.value if isinstance(base, ast.Subscript) else base for base in owner.bases]
    return [base for base in map(ast.unparse, named) if base not in {"Generic", "Protocol"}]


def test_no_part_of_a_node_is_made_of_more_than_seven_things() -> None:
    """More are something else that has no name yet: see `TimerContext`, and the protocols of owners."""
    too_many = [
        where
        for where, owner in _classes("node/*.py", "queries/*.py", "event_iterator.py")
        if (made := _function(owner, "__init__")) is not None
        and len(made.args.posonlyargs + made.args.args + made.args.kwonlyargs) - 1 > ARGUMENTS_MAX
    ]

    assert too_many == []


def test_every_part_of_a_node_is_whole_when_it_is_made() -> None:
    """Its constructor sets all that it has, and no part sets a callback of another."""
    unset: list[str] = []
    for where, owner in _classes("node/*.py", "queries/*.py", "event_iterator.py", "posts.py", "timer.py"):
        for node in ast.walk(owner):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute) and node.value is None:
                unset.append(f"{where} leaves {ast.unparse(node.target)} unset")
            elif isinstance(node, ast.Assign):
                unset += [
                    f"{where} sets {ast.unparse(target)}"
                    for target in node.targets
                    if isinstance(target, ast.Attribute) and target.attr.startswith("on_")
                    if ast.unparse(target.value) != "self"
                ]
        if any(isinstance(node, ast.FunctionDef) and node.name.startswith("_init_") for node in owner.body):
            unset.append(f"{where} is made in several calls")

    assert unset == []


def test_a_timer_has_its_parts_and_inherits_from_none() -> None:
    inherited = [
        where
        for where, owner in _classes("node/*.py", "queries/*.py", "event_iterator.py", "posts.py", "timer.py")
        if len(_bases(owner)) > 1 or (owner.name == "DTimer" and _bases(owner))
    ]

    assert inherited == []
