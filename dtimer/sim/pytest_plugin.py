"""The plugin for pytest: a simulated store for a test, or a simulated world, and seeds to run it with.

It does nothing to tests that do not ask for one of its fixtures or carry its marker.
pytest loads it in every run of every project that has dtimer installed, so what it needs is imported when it is used.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, cast

import pytest
from typing_extensions import TypeIs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtimer.sim import Faults, SimBackend, SimClock, Simulation

MARKER: Final = "dtimer_seeds"
SEED_DEFAULT: Final = 0


class MakeSimulation(Protocol):
    """The type of the fixture `simulation`."""

    def __call__(self, *, nodes: int | Sequence[str] = 3, faults: Faults | None = None) -> Simulation:
        """The arguments are those of :class:`dtimer.sim.Simulation`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("dtimer").addoption(
        "--dtimer-seed",
        type=int,
        metavar="N",
        help=f"run dtimer's simulations with this seed only, also those marked with {MARKER}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(count or list): run the test once for each of these seeds of dtimer's simulations, "
        "from 0 if their number is given",
    )


@pytest.fixture
def dtimer_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's simulations: from the marker, from --dtimer-seed, or 0."""
    seed: int | None = getattr(request, "param", None)
    if seed is None:
        seed = _only_seed(request.config)
    return SEED_DEFAULT if seed is None else seed


@pytest.fixture
def sim(dtimer_seed: int) -> Iterator[SimBackend]:
    """A fresh :class:`dtimer.SimBackend`, closed when the test is over, whatever is under way in it then."""
    from dtimer.sim import SimBackend

    sim = SimBackend(seed=dtimer_seed)
    yield sim
    # The loop may have been closed over the tasks of its nodes; whether that is a fault is not the plugin's to say.
    with suppress(RuntimeError):
        sim.close_now()


@pytest.fixture
def sim_clock(sim: SimBackend) -> SimClock:
    """What moves and tells the time of `sim`, for tests whose application has the backend."""
    return sim


@pytest.fixture
def simulation(dtimer_seed: int) -> MakeSimulation:
    """Makes a :class:`dtimer.sim.Simulation` with the seed of this test: `simulation(nodes=3, faults=…)`."""
    from dtimer.sim import Simulation

    return partial(Simulation, seed=dtimer_seed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        return
    seeds = _seeds_of(marker)
    if "dtimer_seed" not in metafunc.fixturenames:
        _refuse("the test uses none of the fixtures that have a seed: sim, sim_clock, simulation, dtimer_seed")
    only = _only_seed(metafunc.config)
    metafunc.parametrize("dtimer_seed", seeds if only is None else [only], ids="seed{}".format, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that has come to its end is told what its handlers raised for it and no other call has raised."""
    try:
        result = yield
    except BaseException as error:
        _tell_beside(error)
        raise
    _tell()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """The same of what is raised while its fixtures come to their end, in a timer that they leave say."""
    try:
        yield
    except BaseException as error:
        _tell_beside(error)
        raise
    _tell()


def _tell() -> None:
    untold = sys.modules.get("dtimer.sim.untold")  # else no simulator was made
    error: BaseException | None = None if untold is None else untold.take_any()
    if error is not None:
        raise error


def _tell_beside(error: BaseException) -> None:
    """There is an error already, which may well come of what was raised first."""
    try:
        _tell()
    except BaseException as untold:
        if untold is not error:
            error.add_note(f"Before, a handler raised {type(untold).__name__}: {untold}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seed = _seed_of(item)
    if report.failed and seed is not None:
        # A node id begins with the path below pytest's root, which need not be the directory that pytest was called in.
        path = os.path.relpath(item.path, item.config.invocation_params.dir)
        name = "::".join([path, *item.nodeid.split("::")[1:]])
        command = shlex.join(["pytest", name, "--dtimer-seed", str(seed)])
        report.sections.append(("dtimer", f"The seed was {seed}. To run this again:\n    {command}"))
    return report


def _seeds_of(marker: pytest.Mark) -> list[int]:
    from dtimer.safe_repr import safe_repr

    if len(marker.args) != 1 or marker.kwargs:
        _refuse("takes one argument, the number of seeds or a list of them")
    (argument,) = cast("tuple[object, ...]", marker.args)
    if isinstance(argument, Iterable):
        seeds = list(cast("Iterable[object]", argument))
    elif _is_seed(argument):
        seeds = list[object](range(argument))
    else:
        _refuse(f"takes the number of seeds or a list of them, not {safe_repr(argument)}")
    if not seeds:
        _refuse(f"no seed is left: {safe_repr(marker.args[0])}")
    wrong = [seed for seed in seeds if not _is_seed(seed)]
    if wrong:
        _refuse(f"seeds are integers from 0, not {safe_repr(wrong[0])}")
    return cast("list[int]", seeds)


def _is_seed(value: object) -> TypeIs[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refuse(problem: str) -> NoReturn:
    pytest.fail(f"@pytest.mark.{MARKER}: {problem}", pytrace=False)


def _only_seed(config: pytest.Config) -> int | None:
    return cast("int | None", config.getoption("dtimer_seed"))


def _seed_of(item: pytest.Item) -> int | None:
    """The seed of a test whose seeds somebody has chosen."""
    if not isinstance(item, pytest.Function) or "dtimer_seed" not in item.fixturenames:
        return None
    if hasattr(item, "callspec") and "dtimer_seed" in item.callspec.params:
        return cast("int", item.callspec.params["dtimer_seed"])
    return _only_seed(item.config)
