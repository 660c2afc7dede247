"""``dtimer demo`` as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.servers import running, server_binaries


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dtimer", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.once
def test_it_shows_every_promise_on_a_server_of_its_own() -> None:
    """And says so in plain lines where there is no terminal."""
    shown = demo()

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "WRONG" not in shown.stdout
    for promise in ("each node in its turn", "num_retries [0, 1]", "never came", "came after 0.8 s", "were confirmed"):
        assert promise in shown.stdout
    assert "lateness p99" in shown.stdout


@pytest.mark.once
def test_it_runs_on_a_server_of_the_users_and_leaves_nothing_there() -> None:
    """One of those found is enough: what differs between them is tested elsewhere."""
    with running(server_binaries()[-1]) as server, server.client() as client:
        shown = demo("--redis-url", server.url)

        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert client.keys("*") == []


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    shown = demo("--redis-url", "redis://127.0.0.1:1")

    assert shown.returncode == 2
    assert "127.0.0.1:1" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_command_explains_itself() -> None:
    shown = demo("--help")

    assert shown.returncode == 0
    assert "--redis-url" in shown.stdout
