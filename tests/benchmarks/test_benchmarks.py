"""The benchmark runs, on a real server, and no figure comes from a broken run."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from attrs import evolve
from packaging.requirements import Requirement

from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.once

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.result import Result

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no part of the package, and the root is not on the path."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize(
    ("fires", "complaint"),
    [
        pytest.param([[0, 5], [1, 5]], "1 of 3 did not fire", id="lost"),
        pytest.param([[0, 5], [1, 5], [2, 5], [1, 9]], "timer 1 fired twice", id="twice"),
        pytest.param([[0, 5], [1, -2_000], [2, 5]], "fired 2.0 ms early", id="early"),
        pytest.param([[0, 5], [1, 5], [2, 5], [7, 5]], "1 fired that were not due", id="not due"),
    ],
)
def test_a_run_that_broke_a_promise_makes_no_figure(fires: list[list[int]], complaint: str) -> None:
    from benchmarks.measures.firing import checked
    from benchmarks.process import Broken

    with pytest.raises(Broken, match=complaint):
        checked([fires], range(3))


def test_the_fires_of_all_processes_count_together() -> None:
    from benchmarks.measures.firing import checked

    assert checked([[[0, 30], [2, 10]], [[1, 20]]], range(3)) == [10, 20, 30]


@pytest.mark.parametrize(
    ("against", "base", "sense", "limit", "ratio", "reached"),
    [
        pytest.param("the fastest peer", "", "at least", 2, 60 / 40, False, id="the fastest of all"),
        pytest.param("the fastest in Python", "", "at least", 2, 60 / 10, True, id="the fastest in Python"),
        pytest.param("dtimer 0.3.3 (Node)", "", "at least", 3, 60 / 20, True, id="the original"),
        pytest.param("", "g", "at most", 1.5, 60 / 50, True, id="another figure of ours"),
        pytest.param("", "", "at most", 59, None, False, id="a plain limit"),
        pytest.param("", "unknown", "at most", 1, None, None, id="not measured"),
    ],
)
def test_a_goal_is_judged_against_what_it_names(  # noqa: PLR0917
    against: str, base: str, sense: str, limit: float, ratio: float | None, reached: bool | None
) -> None:
    from benchmarks.goals import Goal, judge

    figures = {("f", "dtimer"): 60.0, ("f", "bullmq"): 40.0, ("f", "dtimer-node"): 20.0, ("f", "saq"): 10.0}
    figures["g", "dtimer"] = 50.0
    runtimes = {"dtimer": "python", "bullmq": "node", "dtimer-node": "node", "saq": "python"}
    goal = Goal("what", "f", "at least" if sense == "at least" else "at most", limit, "/s", against=against, base=base)

    verdict = judge(goal, lambda figure, key: figures.get((figure, key)), runtimes)

    assert (verdict.ratio, verdict.reached) == (ratio, reached)


def test_every_peer_has_a_module_and_pinned_packages() -> None:
    from benchmarks.catalogue import PEERS

    for peer in PEERS:
        if peer.runtime == "node":
            files = [
                f"peers/{peer.folder}.mjs",
                f"npm/{peer.folder}/package.json",
                f"npm/{peer.folder}/package-lock.json",
            ]
        else:
            files = [f"peers/{peer.key.replace('-', '_')}_peer.py", f"requirements/{peer.key}.txt"]
        for file in files:
            assert (ROOT / "benchmarks" / file).is_file(), file


def test_no_pinned_package_names_a_registry() -> None:
    """They are taken from wherever the machine's own clients are set up to."""
    for lock in (ROOT / "benchmarks" / "npm").glob("*/package-lock.json"):
        assert '"resolved"' not in lock.read_text()


@pytest.mark.parametrize("python", ["3.11.2", "3.11.3", "3.13.0"])
def test_what_our_packages_need_is_pinned_for_every_python(python: str) -> None:
    """The pins are installed without their dependencies, and redis-py needs more on Debian 12's own Python."""
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    lines = "".join((ROOT / "benchmarks" / "requirements" / f"{name}.txt").read_text() for name in ("common", "dtimer"))
    known = [Requirement(line) for line in lines.splitlines() if not line.startswith("#")]
    pinned = {pin.name for pin in known if pin.marker is None or pin.marker.evaluate(environment)}

    for name in ("attrs", "redis", "typing-extensions"):
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": "", **environment}):
                assert needed.name in pinned, f"{name} needs {needed}"


@pytest.mark.parametrize(
    ("num", "interval"),
    [
        pytest.param(5, None, id="not even all of five are enough"),
        pytest.param(6, (1, 6), id="six"),
        pytest.param(12, (3, 10), id="twelve"),
        pytest.param(100, (40, 61), id="a hundred"),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_tables(num: int, interval: tuple[float, float] | None) -> None:
    from benchmarks.comparison import interval_of_median

    assert interval_of_median(range(num, 0, -1)) == interval


@pytest.mark.parametrize(
    ("better", "ratios", "said"),
    [
        pytest.param("more", [0.9] * 9 + [1.0] * 3, "no worse", id="an interval that only begins below"),
        pytest.param("more", [0.9] * 10 + [1.0] * 2, "WORSE", id="slower"),
        pytest.param("more", [0.96] * 12, "no worse", id="slower by less than what is tolerated"),
        pytest.param("more", [3.0] * 12, "no worse", id="faster"),
        pytest.param("less", [1.1] * 10 + [1.0] * 2, "WORSE", id="later"),
        pytest.param("less", [0.5] * 12, "no worse", id="earlier"),
        pytest.param("more", [0.5] * 11, "too few rounds: 11 of 12", id="too few rounds"),
    ],
)
def test_worse_is_what_lies_beyond_the_limit_with_its_whole_interval(
    better: str, ratios: list[float], said: str
) -> None:
    from benchmarks.comparison import Line, compare

    line = Line("what", "figure", "/s", "more" if better == "more" else "less")

    assert compare(line, ratios).said == said


def test_only_rounds_in_which_both_sides_have_a_figure_are_compared() -> None:
    from benchmarks.bench import Figures

    figures = Figures()
    for turn, subject, value in ((0, "a", 1.0), (0, "b", 2.0), (1, "b", 2.0), (2, "a", 3.0), (2, "b", 2.0)):
        figures.turn = turn
        figures.add("f", subject, value)

    assert figures.ratios("f", "a", "b") == [0.5, 1.5]


def test_two_builds_take_their_turns_in_alternation() -> None:
    """Ours, theirs, theirs, ours: a drift, as of a machine that warms up, favours neither."""
    from benchmarks.bench import AGAINST, Bench
    from benchmarks.catalogue import OURS, PEERS
    from benchmarks.comparison import ROUNDS_MIN

    today, then = PEERS[0], evolve(PEERS[0], key=f"{OURS}@then")
    bench = Bench(None, AGAINST, [today, then], {})  # type: ignore[arg-type]  # none is asked for

    turns = []
    for number, peer in bench.in_turn(bench.peers, turns=2, rounds=2):
        assert number == bench.figures.turn, "its figures count for this turn"
        turns.append((number, peer.key == OURS))

    assert turns == [(0, True), (0, False), (1, False), (1, True), (2, True), (2, False), (3, False), (3, True)]
    assert AGAINST.rounds >= ROUNDS_MIN
    assert AGAINST.steady_rounds >= ROUNDS_MIN


@pytest.mark.campaign
def test_a_build_is_compared_with_that_of_a_commit(tmp_path: Path) -> None:
    """The commit's own worker runs its own code: here, one that takes its time for each post of a lone caller."""
    from benchmarks.bench import QUICK_AGAINST, Bench
    from benchmarks.catalogue import OURS, PEERS
    from benchmarks.environments import checkout, full_name
    from benchmarks.measures import posts
    from benchmarks.process import Command
    from benchmarks.report.text import text
    from benchmarks.result import Result, result_of
    from benchmarks.server import Server

    repository = tmp_path / "repository"
    for package in ("benchmarks", "dtimer"):
        shutil.copytree(ROOT / package, repository / package, ignore=shutil.ignore_patterns("__pycache__"))
    worker = repository / "benchmarks" / "peers" / "dtimer_peer.py"
    quick = "    async def post(self, timer: Timer) -> None:\n"
    assert quick in worker.read_text()
    worker.write_text(worker.read_text().replace(quick, f"{quick}        await asyncio.sleep(0.005)\n"))
    _git(repository, "init", "--quiet")
    _git(repository, "add", ".")
    _git(repository, "commit", "--quiet", "--message=Take time")
    commit = full_name("HEAD", repository)
    then = evolve(PEERS[0], key=f"{OURS}@{commit[:10]}", title="then")
    checkout(commit, tmp_path / "source", repository)
    words = [sys.executable, "-m", "benchmarks.peers.dtimer_peer"]
    commands = {OURS: Command(words, ROOT), then.key: Command(words, tmp_path / "source")}
    sizes = evolve(QUICK_AGAINST, rounds=6, posts_one=20, posts_many=100)

    with Server() as server:
        bench = Bench(server, sizes, [PEERS[0], then], commands)
        posts.measure(bench)
        result = result_of(bench, [], uvloop=False, left_out={}, against=then.key)

    assert not result.failures
    assert len(result.ratios["post.one"]) == 6
    assert min(result.ratios["post.one"]) > 2
    result.write(tmp_path / "result.json")
    shown = text(Result.read(tmp_path / "result.json"))
    assert f"against {commit[:10]}" in shown
    assert "posts, 64 callers" in shown


def test_the_simulator_of_two_builds_is_measured_by_one_program(tmp_path: Path) -> None:
    """A commit has the package alone, here one that takes its time for each event of a unit test."""
    from benchmarks.bench import QUICK_AGAINST, Bench
    from benchmarks.catalogue import OURS, PEERS
    from benchmarks.measures import simulator
    from benchmarks.process import Command

    shutil.copytree(ROOT / "dtimer", tmp_path / "dtimer", ignore=shutil.ignore_patterns("__pycache__"))
    backend = tmp_path / "dtimer" / "sim" / "runtime.py"
    moment = "    def now_us(self) -> int:\n"
    assert moment in backend.read_text()
    backend.write_text(backend.read_text().replace(moment, f"{moment}        sum(range(2_000))\n"))
    then = evolve(PEERS[0], key=f"{OURS}@then", title="then")
    commands = {OURS: Command([sys.executable], ROOT), then.key: Command([sys.executable], tmp_path)}
    bench = Bench(None, evolve(QUICK_AGAINST, rounds=1), [PEERS[0], then], commands)  # type: ignore[arg-type]  # no server

    simulator.measure(bench)

    assert not bench.figures.failures
    for figure in ("sim.day.cpu_s", "sim.day.peak_mib", "sim.test.cpu_ms", "sim.idle.cpu_s"):
        assert len(bench.figures.ratios(figure, OURS, then.key)) == 1
    assert bench.figures.ratios("sim.test.cpu_ms", OURS, then.key)[0] < 0.8, "each ran the package of its own folder"


def _git(repository: Path, *words: str) -> None:
    author = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a",
    }
    subprocess.run(["git", *words], cwd=repository, env={**os.environ, **author}, check=True)


def test_a_commit_that_cannot_be_compared_with_is_told_by_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import environments
    from benchmarks.run import main

    assert main(["--against", "no-such-commit"]) == 2
    assert "there is no commit 'no-such-commit'" in capsys.readouterr().err
    with pytest.raises(environments.NotInstalled, match="there is no commit 'HEAD'"):
        environments.full_name("HEAD", tmp_path)
    for words in (["--peers", "saq"], ["--only", "raw"], ["--html", "plots.html"]):
        with pytest.raises(SystemExit, match="2"):
            main(["--against", "HEAD", *words])


SERVING: Final = """
from benchmarks.run import ended_in_order
from benchmarks.server import Server

with ended_in_order(), Server() as server:
    print(server.pid, server.folder, flush=True)
    input()
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_benchmark(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVING],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as benchmark:
        assert benchmark.stdout is not None
        pid, folder = benchmark.stdout.readline().split()
        assert _runs(int(pid))

        benchmark.send_signal(ending)

        assert benchmark.wait(timeout=TIMEOUT_S) != 0
    asyncio.run(until(lambda: not _runs(int(pid))))
    # Nothing of Python's own runs when it is killed.
    assert Path(folder).exists() is (ending is signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def measured() -> Result:
    """Ours, on a server of the benchmark's own, with tiny numbers: what the environments would add is left out."""
    from benchmarks.bench import QUICK, Bench
    from benchmarks.catalogue import OURS, PEERS
    from benchmarks.measures import drains, lateness, posts
    from benchmarks.process import Command
    from benchmarks.result import result_of
    from benchmarks.server import Server

    sizes = evolve(QUICK, posts_one=50, posts_many=200, drain=200, pace_s=0.2, quiet_s=0.5)
    commands = {OURS: Command([sys.executable, "-m", "benchmarks.peers.dtimer_peer"], ROOT)}
    with Server() as server:
        bench: Bench = Bench(server, sizes, [peer for peer in PEERS if peer.key == OURS], commands)
        for measure in (posts.measure, drains.measure, lateness.measure):
            measure(bench)
        return result_of(bench, ["--quick"], uvloop=False, left_out={"bullmq": "no node here"})


def test_ours_is_measured_and_reported(measured: Result, tmp_path: Path) -> None:
    from benchmarks.report.html import page
    from benchmarks.report.markdown import BEGIN, END, write_into
    from benchmarks.report.text import text
    from benchmarks.result import Result

    assert not measured.failures
    for figure in ("post.one", "post.callers", "post.batch", "drain.100", "drain.8", "late.500.p99", "work.cpu_us"):
        value = measured.median(figure, "dtimer")
        assert value is not None, figure
        assert value > 0, figure

    measured.write(tmp_path / "result.json")
    again = Result.read(tmp_path / "result.json")
    assert again == measured

    shown = text(again)
    assert "posts, 64 callers" in shown
    assert "bullmq is left out: no node here" in shown
    drawn = page(again)
    assert "<script" not in drawn
    plots = [ET.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>") for part in drawn.split("<svg")[1:]]
    assert len(plots) > 5
    document = tmp_path / "page.md"
    document.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_into(document, again)
    written = document.read_text()
    assert '`make bench ARGS="--quick"`' in written
    assert written.startswith("above")
    assert written.endswith("below\n")
    assert "old" not in written
    assert "| posts, one caller |" in written


@pytest.mark.parametrize(("flags", "codec"), [([], "OrjsonCodec"), (["--no-orjson"], "JsonCodec")])
def test_ours_writes_json_as_it_is_told_to(flags: list[str], codec: str) -> None:
    """A peer's module decides when it is imported, so each time in a process of its own."""
    code = (
        "from benchmarks.peers import dtimer_peer as ours, serving\n"
        "print(type(ours.CODEC).__name__, serving._version('orjson'))"
    )

    said = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split(" ", 1)

    assert said[0] == codec
    assert (said[1] == "not used\n") is bool(flags)


def test_a_broken_run_is_told_by_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.bench import Failure
    from benchmarks.result import Result
    from benchmarks.run import main

    good = Result("now", "0.1.0", "c", "m", "s", "make bench", 1, False, [], {}, {}, [])
    good.write(tmp_path / "good.json")
    slow = Failure("late.2000", "arq", "too slow to post", broken=False)
    evolve(good, failures=[slow]).write(tmp_path / "slow.json")
    evolve(good, failures=[slow, Failure("drain.100", "saq", "1 of 9 did not fire", broken=True)]).write(
        tmp_path / "broken.json"
    )

    assert main(["--from", str(tmp_path / "good.json")]) == 0
    assert main(["--from", str(tmp_path / "slow.json")]) == 0
    assert main(["--from", str(tmp_path / "broken.json")]) == 1
    assert "BROKEN RUN: drain.100, saq: 1 of 9 did not fire" in capsys.readouterr().out


@pytest.mark.parametrize(("ratio", "status", "said"), [(0.8, 1, "WORSE"), (1.0, 0, "no worse")])
def test_a_build_that_is_worse_is_told_by_the_exit_status(
    ratio: float, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.result import Result
    from benchmarks.run import main

    result = Result("now", "0.1.0", "c", "m", "s", "make bench", 1, False, [], {}, {}, [])
    evolve(result, against="dtimer@0123456789", ratios={"post.one": [ratio] * 12}).write(tmp_path / "result.json")

    assert main(["--from", str(tmp_path / "result.json")]) == status
    assert said in capsys.readouterr().out


WAITING: Final = """
import sys
from benchmarks.run import main

sys.exit(main(["--from", sys.argv[1]]))
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_comes_to_an_end_of_its_own_when_it_is_ended(ending: signal.Signals, tmp_path: Path) -> None:
    """By an exception, by which it ends its server and its processes; here it waits for a file."""
    fifo = tmp_path / "result.json"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(fifo)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # Signals that are ignored by what runs the tests would be by their processes.
        preexec_fn=partial(signal.signal, ending, signal.SIG_DFL),  # noqa: PLW1509  # no threads here
    ) as benchmark:
        with fifo.open("w"):  # as soon as it reads
            benchmark.send_signal(ending)
            status = benchmark.wait(timeout=TIMEOUT_S)
        assert benchmark.stderr is not None
        complaint = benchmark.stderr.read()

    if ending is signal.SIGINT:
        assert "KeyboardInterrupt" in complaint
    else:
        assert (status, complaint) == (128 + ending, "")
