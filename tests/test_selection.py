"""The marks do what they say: which tests `make test` runs on which Python and server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.interpreters import ROOT, dev
from support.lacking import missing_kinds
from support.servers import server_binaries

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.once

SERVERS = ["old.1", "old.2", "new.1", "new.2"]
CORE = [
    "tests/backends/redis/test_backend.py",
    "tests/backends/redis/test_clock_reset.py",
    "tests/backends/redis/test_equals_machine.py",
    "tests/backends/redis/test_errors.py",
    "tests/backends/redis/test_foreign_data.py",
    "tests/backends/redis/test_pubsub.py",
    "tests/backends/redis/test_scripts.py",
    "tests/backends/redis/test_security.py",
    "tests/conformance/test_redis.py",
    "tests/test_partitions.py",
    "tests/upstream/test_delays.py",
    "tests/upstream/test_payloads_and_options.py",
    "tests/upstream/test_retries.py",
]
PROJECT = f"""
    from pathlib import Path

    import pytest
    from support.servers import Binary

    BINARIES = [Binary(name, Path(name)) for name in {SERVERS}]
    on_servers = pytest.mark.parametrize("binary", BINARIES, ids=lambda binary: binary.name)

    def test_plain(): pass

    @pytest.mark.once
    def test_once(): pass

    @pytest.mark.campaign
    def test_campaign(): pass

    @on_servers
    def test_each(binary): pass

    @pytest.mark.any_server
    @on_servers
    @pytest.mark.parametrize("number", range(40))
    def test_any(binary, number): pass

    @pytest.mark.any_server
    def test_any_without_a_server(): pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose conftest has the hook of this one."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest("from support.selection import pytest_collection_modifyitems")
    pytester.makeini("[pytest]\nmarkers =\n    once\n    any_server\n    campaign\n")
    pytester.makepyfile(PROJECT)
    return pytester


def chosen(project: pytest.Pytester, *arguments: str) -> list[str]:
    """The tests that would run, without the name of their file."""
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "--collect-only", "-q", *arguments)
    assert result.ret == 0
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def num_cases(tests: list[str]) -> Counter[str]:
    return Counter(test.partition("[")[0] for test in tests)


def test_make_test_all_runs_everything_on_every_server(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DTIMER_TEST_SERVERS", raising=False)

    assert num_cases(chosen(project)) == {
        "test_plain": 1,
        "test_once": 1,
        "test_campaign": 1,
        "test_each": 4,
        "test_any": 160,
        "test_any_without_a_server": 1,
    }


def test_on_the_oldest_python_servers_share_what_is_marked(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case once, on the server that it always has; and every server has some."""
    monkeypatch.setenv("DTIMER_TEST_SERVERS", "shared")
    ran = chosen(project)

    assert chosen(project) == ran
    assert num_cases(ran) == {
        "test_plain": 1,
        "test_once": 1,
        "test_each": 4,
        "test_any": 40,
        "test_any_without_a_server": 1,
    }
    shared = [test for test in ran if test.startswith("test_any[")]
    assert {server for server in SERVERS for test in shared if server in test} == set(SERVERS)
    assert {re.findall(r"\d+", test)[0] for test in shared} == {f"{number}" for number in range(40)}


def test_on_other_pythons_what_is_marked_once_is_left_out(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is one server only, `support.servers` sees to."""
    monkeypatch.setenv("DTIMER_TEST_SERVERS", "first")

    assert set(num_cases(chosen(project))) == {"test_plain", "test_each", "test_any", "test_any_without_a_server"}


def test_a_test_that_is_asked_for_by_its_server_is_run(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTIMER_TEST_SERVERS", "shared")

    ran = chosen(project, "-k", "new.2")

    assert num_cases(ran) == {"test_each": 1, "test_any": 40}


def test_a_word_that_means_nothing_is_refused(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTIMER_TEST_SERVERS", "some")

    result = project.runpytest_subprocess("-p", "no:cacheprovider")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*DTIMER_TEST_SERVERS is 'some', which is none of all, shared, first*"])


def test_each_kind_of_server_is_judged_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only one kind of server can show wrong is in these files: scripts, replies, permissions, users' calls."""
    monkeypatch.setenv("DTIMER_TEST_SERVERS", "shared")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *CORE]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for file in CORE:
        num_tests = {
            binary.name: sum(line.startswith(file) and binary.name in line for line in listed.splitlines())
            for binary in server_binaries()
        }
        assert len(set(num_tests.values())) <= 1, (file, num_tests)
        assert all(num_tests.values()), (file, num_tests)


def test_what_this_machine_lacks_is_named() -> None:
    assert missing_kinds(["valkey-9.1.2", "redis-7.0.15"]) == ["redis-6.x", "redis-8.x"]
    assert dev().missing_pythons(["3.11", "3.13"]) == ["3.12", "3.14"]
