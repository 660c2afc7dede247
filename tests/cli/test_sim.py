"""``dtimer sim`` as a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pytest

import dtimer.sim.faulty.store
from dtimer.cli import main
from support.breaking import broken_machine
from support.mutants import MUTANTS
from support.waiting import until

pytestmark = pytest.mark.once

SMALL: Final = ("--seeds", "3", "--seed", "0", "--nodes", "3", "--hours", "0.05")
(MUTANT,) = (mutant for mutant in MUTANTS if mutant.name == "forget a retry")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "dtimer", "sim", *arguments]


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def table(output: str) -> dict[str, str]:
    rows = dict(re.findall(r"^([a-z-]+) {2,}(.*)$", output, re.MULTILINE))
    rows["node-hours"] = rows["node-hours"].split(" in ")[0]
    return rows


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stores of simulations forget retries."""
    monkeypatch.setattr(dtimer.sim.faulty.store, "Machine", broken_machine(MUTANT))


def test_it_tells_what_was_run_however_many_processes_run_it() -> None:
    alone, together = sim(*SMALL, "--jobs", "1"), sim(*SMALL, "--jobs", "2")

    assert alone.returncode == together.returncode == 0, alone.stderr + together.stderr
    assert alone.stderr == together.stderr == ""
    assert alone.stdout.startswith("3 seeds from 0: 3 nodes, 0.05 h, 600 calls an hour\n")
    assert table(alone.stdout) == table(together.stdout)
    assert list(table(alone.stdout))[:3] == ["seeds", "node-hours", "calls"]
    assert table(alone.stdout)["violations"] == "0"


def test_faults_come_from_a_file(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"rates": {"pause": 400}}), encoding="utf-8")

    done = sim(*SMALL, "--jobs", "1", "--faults", str(faults))

    assert done.returncode == 0
    assert re.fullmatch(r"(\d+): pause \1", table(done.stdout)["faults"])


def test_a_fine_run_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "run.html"

    assert main(["sim", *SMALL, "--jobs", "1", "--timeline", str(page)]) == 0

    assert f"timeline: {page}" in capsys.readouterr().out
    assert "<title>dtimer sim, seed 2</title>" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("broken")
def test_what_fails_is_reduced_shown_saved_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command that is printed last shows it again, for as long as the library is broken."""
    case, page = tmp_path / "case.json", tmp_path / "run.html"

    status = main(["sim", *SMALL, "--jobs", "1", "--save", str(case), "--timeline", str(page)])

    said = capsys.readouterr().out
    assert status == 1
    assert table(said)["violations"] == "1"
    assert re.search(r"enough are \d calls? and \d faults? on \d node", said)
    assert re.search(r"^ +[\d.]+ s    post id='[\w-]+' number=\d+", said, re.MULTILINE)
    assert re.search(r"! world +VIOLATION of D4 at n\d, [\w-]+: its deadline is None", said)
    assert "VIOLATION of D4" not in page.read_text(encoding="utf-8"), "the page says it in its own words"
    assert '"what":"violation"' in page.read_text(encoding="utf-8")

    program, *again = shlex.split(said.splitlines()[-1].removeprefix("replay: "))
    assert program == "dtimer"
    assert main(again) == 1
    (violation,) = re.findall("^VIOLATION .*", capsys.readouterr().out, re.MULTILINE)
    assert violation in said

    monkeypatch.undo()
    assert main(again) == 0
    assert capsys.readouterr().out.endswith("no violation\n")


@pytest.mark.usefixtures("broken")
def test_a_case_that_nobody_named_is_saved_under_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["sim", *SMALL, "--jobs", "1"]) == 1

    assert [path.name for path in tmp_path.iterdir()] == ["dtimer-case-0.json"]


def test_a_file_to_be_written_is_left_as_it_is_until_there_is_something_to_write(tmp_path: Path) -> None:
    """That it can be written is tried before anything runs."""
    there, missing = tmp_path / "there.json", tmp_path / "missing.json"
    there.write_text("mine", encoding="utf-8")
    for path in (there, missing):
        assert main(["sim", *SMALL, "--jobs", "1", "--save", str(path)]) == 0

    assert there.read_text(encoding="utf-8") == "mine"
    assert not missing.exists()


BAD: Final = {
    "--seeds 0": "--seeds must be from 1 to 1,000,000, not 0",
    "--seeds -4": "--seeds must be from 1 to 1,000,000, not -4",
    "--seed -1": "--seed must not be negative, as -1 is",
    "--jobs 0": "--jobs must be at least 1, not 0",
    "--nodes 0": "nodes must be from 1 to 200, not 0",
    "--hours 0": "hours must be from 0.001 to 8784, not 0.0",
    "--hours nan": "hours must be from 0.001 to 8784, not nan",
    "--rate -1": "rate must be from 0 to 1e+07, not -1.0",
    "--faults nowhere.json": "nowhere.json cannot be read: No such file or directory",
    "--replay nowhere.json": "nowhere.json cannot be read: No such file or directory",
    "--replay .": ". cannot be read: Is a directory",
    "--replay binary": "binary cannot be read as text: ",
    "--replay half.json": "half.json is not what Case.to_json writes: JSONDecodeError(",
    "--replay list.json": "list.json is not what Case.to_json writes: ",
    "--replay later.json": "later.json is not what Case.to_json writes: ValueError('its format is not 2')",
    "--faults half.json": "half.json is not what Faults.to_json writes: JSONDecodeError(",
    "--faults list.json": "list.json is not what Faults.to_json writes: ",
    "--faults quake.json": "quake.json is not what Faults.to_json writes: rates knows no fault 'quake'; there are ",
    "--save nowhere/case.json": "nowhere/case.json cannot be written: it must be a file in a directory that exists",
    "--save x/../case.json": "x/../case.json cannot be written: it must be a file in a directory that exists",
    f"--save {'x' * 300}": f"{'x' * 300} cannot be written: File name too long",
    "--timeline nul\0": "nul\\x00 cannot be written: ",
    "--replay nul\0": "nul\\x00 cannot be read: ",
    "--replay \x1b[2J": "\\x1b[2J cannot be read: No such file or directory",
    "--replay deep.json": "deep.json is not what Case.to_json writes: RecursionError(",
    "--faults deep.json": "deep.json is not what Faults.to_json writes: RecursionError(",
    "--timeline .": ". cannot be written: it must be a file in a directory that exists",
}


@pytest.mark.parametrize(("arguments", "said"), BAD.items(), ids=BAD)
def test_bad_arguments_and_files_get_one_clear_line(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\xff\xfe")
    Path("half.json").write_text('{"rates": ', encoding="utf-8")
    Path("list.json").write_text("[]", encoding="utf-8")
    Path("deep.json").write_text("[" * 200_000, encoding="utf-8")
    Path("later.json").write_text('{"dtimer_case": 3}', encoding="utf-8")
    Path("quake.json").write_text('{"rates": {"quake": 1}}', encoding="utf-8")

    # What is not refused is run, and is to have an end.
    assert main(["sim", *SMALL, "--jobs", "1", *arguments.split()]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"dtimer sim: {said}")
    assert shown.err.count("\n") == 1


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes as Linux shows them")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_it_is_ended(jobs: int, ending: signal.Signals) -> None:
    """Ctrl-C gets no traceback, and after neither is there a process or a semaphore that nobody owns."""
    long = command("--seeds", "50", "--nodes", "3", "--hours", "80", "--rate", "20", "--jobs", str(jobs))
    with subprocess.Popen(
        long,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What is started in the background by a shell inherits that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads here
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()
            # It says how far it is as soon as seeds are at work.
            assert "virtual hours" in process.stdout.readline()
            children = children_of(process.pid)
            process.send_signal(ending)
            status = process.wait(60)
        finally:
            process.kill()
        said = process.stderr.read()

    assert status == (130 if ending is signal.SIGINT else -signal.SIGKILL)
    # Workers whose parent was killed end in the middle of what they do; the interpreter may have a word to say on it.
    assert said == "" if ending is signal.SIGINT else "Traceback" not in said
    assert len(children) >= (jobs if jobs > 1 else 0)
    asyncio.run(until(lambda: not any(Path(f"/proc/{child}").exists() for child in children)))
