"""The plugin for pytest, in runs of its own: it serves tests that ask, and leaves the others alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from support.installed import installed_path

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.once

LOOP_SCOPE = "asyncio_default_fixture_loop_scope=function"
EDITABLE = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
"""About the finder of an editable install of dtimer, which is here perhaps and not on the host of a user."""
OTHERS = ("anyio", "asyncio", "hypothesispytest", "timeout", "xdist")
CART = """
    from datetime import timedelta
    from dtimer import DTimer

    async def remind(sim):
        seen = []
        async with DTimer(sim) as timer:
            timer.on("event", lambda event: seen.append(event.payload))
            await timer.post("x", timedelta(days=3))
            await sim.advance(timedelta(days=3))
        assert seen == ["x"]
        return timer.node_id
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A directory of a project that has dtimer installed, as far as pytest can tell."""
    monkeypatch.setenv("PYTHONPATH", installed_path(tmp_path_factory.mktemp("site")))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def run(project: pytest.Pytester, *arguments: str, plugins: Sequence[str] = ()) -> pytest.RunResult:
    """A run with the plugins that are named, of those that this host has, and with ours."""
    without = [argument for name in OTHERS if name not in plugins for argument in ("-p", f"no:{name}")]
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", "-W", EDITABLE, *without, *arguments)


# --- fixtures ----------------------------------------------------------------------------------------------


def test_without_any_asynchronous_plugin_the_fixtures_serve_a_test_that_runs_a_loop(project: pytest.Pytester) -> None:
    """They are ordinary objects, made where no loop runs."""
    project.makepyfile(
        CART
        + """
    import asyncio

    def test_it(sim, sim_clock):
        before = sim_clock.now
        asyncio.run(remind(sim))
        assert sim_clock.now - before >= timedelta(days=3)
    """
    )

    run(project).assert_outcomes(passed=1)


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_with_pytest_asyncio_they_serve_coroutine_functions(project: pytest.Pytester, mode: str, mark: str) -> None:
    project.makepyfile(
        CART
        + f"""
    import pytest

    {mark}
    async def test_it(sim):
        await remind(sim)

    {mark}
    async def test_autojump(sim, sim_clock):
        async with sim_clock.autojump():
            async with DTimer(sim) as timer:
                await timer.post("x", timedelta(days=3))
                async with timer.events() as events:
                    assert (await anext(events)).payload == "x"
    """
    )

    run(project, f"--asyncio-mode={mode}", "-o", LOOP_SCOPE, plugins=["asyncio"]).assert_outcomes(passed=2)


def test_with_the_plugin_of_anyio_they_serve_coroutine_functions(project: pytest.Pytester) -> None:
    pytest.importorskip("anyio", reason="the environments of `make test` have it")
    project.makepyfile(
        CART
        + """
    import pytest

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_it(sim):
        await remind(sim)
    """
    )

    run(project, plugins=["anyio"]).assert_outcomes(passed=1)


def test_a_simulated_cluster_has_the_seed_of_its_test(project: pytest.Pytester) -> None:
    """And is run by a plain function."""
    project.makepyfile(
        """
    import asyncio
    import pytest
    from dtimer import DTimer
    from dtimer.sim import Faults

    digests = {}

    @pytest.mark.dtimer_seeds([1, 2, 1])
    def test_it(simulation, dtimer_seed):
        cluster = simulation(nodes=2, faults=Faults(rates={"crash": 60}))
        assert (cluster.seed, cluster.nodes) == (dtimer_seed, ("n1", "n2"))

        @cluster.node
        async def shop(host):
            async with DTimer(host.backend()) as timer:
                timer.on("event", lambda event: None)
                await host.forever()

        async def scenario(world):
            await asyncio.sleep(600)

        digests.setdefault(dtimer_seed, set()).add(cluster.run(scenario).digest)

    def test_what_ran():
        assert [len(of_seed) for of_seed in digests.values()] == [1, 1]
        assert digests[1] != digests[2]
    """
    )

    run(project).assert_outcomes(passed=4)


def test_each_test_has_a_simulator_of_its_own_which_is_closed_afterwards(project: pytest.Pytester) -> None:
    """Whoever keeps one too long hears of it."""
    project.makepyfile(
        """
    import asyncio
    import pytest
    from dtimer import BackendClosed

    kept = []

    def test_one(sim):
        kept.append(sim)

    def test_another(sim):
        assert sim is not kept[0]
        with pytest.raises(BackendClosed):
            asyncio.run(kept[0].open())
    """
    )

    run(project).assert_outcomes(passed=2)


def test_a_test_that_leaves_a_node_behind_ends_as_it_would_without(project: pytest.Pytester) -> None:
    """Even on a loop that was closed over it: what is left of a passed test is not the simulator's to judge."""
    project.makepyfile(
        """
    import asyncio
    import pytest
    from dtimer import DTimer

    @pytest.mark.filterwarnings("ignore")
    def test_it(sim):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(DTimer(sim).join())
        loop.close()
    """
    )

    run(project).assert_outcomes(passed=1)


# --- seeds -------------------------------------------------------------------------------------------------


def test_a_test_is_run_once_for_each_seed(project: pytest.Pytester) -> None:
    """And each gives another run, the same each time."""
    project.makepyfile(
        CART
        + """
    import asyncio
    import pytest

    ids = []

    @pytest.mark.dtimer_seeds(3)
    def test_count(sim, dtimer_seed):
        ids.append((dtimer_seed, asyncio.run(remind(sim))))

    @pytest.mark.dtimer_seeds([2, 7])
    def test_list(sim, dtimer_seed):
        ids.append((dtimer_seed, asyncio.run(remind(sim))))

    def test_what_ran():
        assert [seed for seed, _ in ids] == [0, 1, 2, 2, 7]
        assert len({id for _, id in ids}) == 4
    """
    )

    result = run(project, "-v")

    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*::test_count?seed0? PASSED*", "*::test_list?seed7? PASSED*"])


FAILS_WITH_SEVEN = """
    import pytest

    @pytest.mark.parametrize("letter", ["a b"])
    @pytest.mark.dtimer_seeds(9)
    def test_it(sim_clock, dtimer_seed, letter):
        assert dtimer_seed != 7
    """


def test_a_failing_seed_is_shown_with_the_command_that_runs_it_again(project: pytest.Pytester) -> None:
    """And that command, copied, does so; wherever pytest was called."""
    folder = project.mkdir("tests")
    (folder / "test_seven.py").write_text("\n".join(line[4:] for line in FAILS_WITH_SEVEN.splitlines()))
    (project.path / "pytest.ini").write_text("[pytest]\n")

    result = run(project, "tests")

    result.assert_outcomes(passed=8, failed=1)
    result.stdout.fnmatch_lines(["*dtimer*", "The seed was 7. To run this again:"])
    (command,) = re.findall(r"^    pytest (.*)$", result.stdout.str(), re.MULTILINE)
    assert command == "'tests/test_seven.py::test_it[seed7-a b]' --dtimer-seed 7"
    again = run(project, "tests/test_seven.py::test_it[seed7-a b]", "--dtimer-seed", "7")
    again.assert_outcomes(failed=1)
    elsewhere = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pytest 'test_seven.py::test_it[seed7-a b]' --dtimer-seed 7" in elsewhere.stdout


def test_one_seed_is_run_again_even_if_the_marker_does_not_have_it(project: pytest.Pytester) -> None:
    """A seed comes from a longer run than the one that finds out why."""
    project.makepyfile(
        """
    import pytest

    @pytest.mark.dtimer_seeds(2)
    def test_marked(sim, dtimer_seed):
        assert dtimer_seed == 4711

    def test_unmarked(sim, dtimer_seed):
        assert dtimer_seed == 4711
        assert not "shown"
    """
    )

    result = run(project, "--dtimer-seed", "4711")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["The seed was 4711.*", "*::test_unmarked --dtimer-seed 4711"])


def test_a_seed_that_nobody_chose_is_not_mentioned(project: pytest.Pytester) -> None:
    """A plain run has it again."""
    project.makepyfile("def test_it(sim, dtimer_seed): assert dtimer_seed")

    result = run(project)

    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*The seed was*")


# --- what handlers raise -----------------------------------------------------------------------------------


HANDLERS = """
    import asyncio
    import pytest
    from dtimer import DTimer, SimBackend

    async def handled(sim, handler, leave):
        timer = DTimer(sim)
        timer.on("event", handler)
        await timer.join()
        await timer.post(1, 0)
        while not timer.counters.handler_errors:
            await asyncio.sleep(0)
        timer.off("event", handler)
        if leave:
            await timer.leave()
"""


def test_what_a_handler_raised_reaches_a_test_that_does_nothing_more(project: pytest.Pytester) -> None:
    """With the fixture or without it, whatever becomes of the simulator: when the test is over at the latest."""
    project.makepyfile(
        HANDLERS
        + """
    def test_fail(sim):
        asyncio.run(handled(sim, lambda event: pytest.fail("the handler says so"), leave=False))

    def test_skip(sim):
        asyncio.run(handled(sim, lambda event: pytest.skip("the handler says so"), leave=False))

    def test_xfail():
        asyncio.run(handled(SimBackend(), lambda event: pytest.xfail("the handler says so"), leave=False))

    def wrong(event):
        assert event.payload == 2

    def test_assert():
        asyncio.run(handled(SimBackend(), wrong, leave=False))

    def test_assert_on_leaving():
        asyncio.run(handled(SimBackend(), wrong, leave=True))

    def test_no_assert():
        asyncio.run(handled(SimBackend(raise_asserts=False), wrong, leave=False))

    def test_nothing_is_left_for_the_next_one(sim):
        pass
    """
    )

    result = run(project)

    result.assert_outcomes(passed=2, failed=3, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*the handler says so*", "*assert event.payload == 2*"])


def test_what_a_handler_raises_while_fixtures_end_is_an_error_of_the_teardown(project: pytest.Pytester) -> None:
    project.makepyfile(
        HANDLERS
        + """
    @pytest.fixture
    def late(sim):
        yield
        asyncio.run(handled(sim, lambda event: pytest.fail("too late"), leave=False))

    def test_it(late):
        pass
    """
    )

    result = run(project)

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "*too late*"])


def test_a_test_that_fails_anyway_tells_what_a_handler_raised_before(project: pytest.Pytester) -> None:
    project.makepyfile(
        HANDLERS
        + """
    def test_it(sim):
        asyncio.run(handled(sim, lambda event: pytest.fail("the cause"), leave=False))
        assert not "the consequence"
    """
    )

    result = run(project)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the consequence*", "*Before, a handler raised Failed: the cause*"])


SENSELESS = {
    "": "takes one argument, *",
    "1, 2": "takes one argument, *",
    "count=3": "takes one argument, *",
    "0": "no seed is left: 0",
    "[]": "no seed is left: ??",
    "-1": "* not -1",
    "True": "* not True",
    "1.5": "* not 1.5",
    "'7'": "* not '7'",
    "[1, -1]": "* not -1",
}
"""Arguments of the marker, and what is said to them."""


def test_a_marker_that_makes_no_sense_is_an_error_of_collection(project: pytest.Pytester) -> None:
    """Before anything runs."""
    for number, arguments in enumerate(SENSELESS):
        source = f"import pytest\n@pytest.mark.dtimer_seeds({arguments})\ndef test_it(sim): pass"
        project.makepyfile(**{f"test_{number}": source})

    result = run(project)

    result.assert_outcomes(errors=len(SENSELESS))
    result.stdout.fnmatch_lines([f"@pytest.mark.dtimer_seeds: {problem}" for problem in SENSELESS.values()])


def test_a_marker_on_a_test_that_has_no_use_for_seeds_is_an_error(project: pytest.Pytester) -> None:
    """It would run the same test again and again."""
    project.makepyfile("import pytest\n@pytest.mark.dtimer_seeds(3)\ndef test_it(): pass")

    result = run(project)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the test uses none of the fixtures that have a seed*"])


# --- the others ----------------------------------------------------------------------------------------------


def test_other_tests_are_left_alone(project: pytest.Pytester) -> None:
    """Their fixtures may have the same names, and of dtimer nothing is imported for them that takes time."""
    project.makepyfile(
        """
    import sys
    import pytest

    @pytest.fixture
    def sim():
        return "mine"

    def test_it(sim, tmp_path, request):
        assert sim == "mine"
        assert not [name for name in request.fixturenames if "dtimer" in name]

    @pytest.mark.parametrize("seed", [1, 2])
    def test_that_fails(seed):
        assert seed == 1

    def test_what_was_imported():
        heavy = {"redis", "hypothesis", "rich", "freezegun", "dtimer.semantics", "dtimer.sim.backend"}
        assert "dtimer.sim.pytest_plugin" in sys.modules
        assert not heavy & set(sys.modules)
    """
    )

    result = run(project, "--strict-markers", "--strict-config")

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.no_fnmatch_line("*The seed was*")


def test_pytest_lists_what_there_is(project: pytest.Pytester) -> None:
    """Where users look for it."""
    assert (
        "@pytest.mark.dtimer_seeds(count or list): run the test once for each" in run(project, "--markers").stdout.str()
    )
    assert re.search(r"^sim -- .*\n +A fresh", run(project, "--fixtures").stdout.str(), re.MULTILINE)
    assert "--dtimer-seed=N" in run(project, "--help").stdout.str()


def test_it_can_be_switched_off(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(sim): pass")

    run(project, "-p", "no:dtimer").assert_outcomes(errors=1)
