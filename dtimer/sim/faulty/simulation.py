"""A whole cluster in one process and in virtual time, with everything that can go wrong; replayed from one integer."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Generic, TextIO, TypeAlias, TypeVar

from attrs import field, frozen
from typing_extensions import override

from dtimer import _validation
from dtimer.errors import BackendError, InvalidArgument
from dtimer.limits import SECOND_US
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.cluster import CLIENT, STORE, Cluster
from dtimer.sim.faulty.fault_schedule import Faults, Injector
from dtimer.sim.faulty.faults import Fault
from dtimer.sim.faulty.host import Application, Host
from dtimer.sim.faulty.observer import Observer
from dtimer.sim.faulty.server import Server
from dtimer.sim.faulty.trace import KEPT_DEFAULT, Counts, Record, Trace
from dtimer.sim.faulty.world import World
from dtimer.sim.loop import SimLoop
from dtimer.sim.rng import Rng
from dtimer.sim.untold import is_for_the_test
from dtimer.user_code import is_outcome

T = TypeVar("T")
ApplicationT = TypeVar("ApplicationT", bound=Application)

Scenario: TypeAlias = Callable[[World], Awaitable[T]]
"""What is done to a world: a coroutine function, in a process of its own."""

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""As in :class:`dtimer.SimBackend`."""
NODES_MAX: Final = 10_000
"""A namespace has some hundred at most; of these, all have their turns within a minute of computing."""
GC_THRESHOLDS: Final = (20_000, 20, 100)
_START_US: Final = int(START.timestamp()) * SECOND_US
_RESERVED: Final = frozenset({CLIENT, STORE, "world", "faults"})


@frozen(kw_only=True)
class Run(Generic[T]):
    """What came of a simulation.

    Attributes:
        seed: the run's.
        error: what the scenario or a program raised; None if all went well.
        trace: its newest records; empty if none were wanted.
        digest: the sha256 of all records: equal digests, equal runs.
        counts: what happened, by what it is: `calls`, `delivered`, `retries`, `takeovers`, `faults`, `fault_crash` ...
        script: the faults that were scripted or drawn and changed something, with their moments in seconds.
            ``Faults(script=run.script)`` and the same seed give the same run.
        duration_us: of virtual time.
    """

    seed: int
    error: BaseException | None
    trace: tuple[Record, ...] = field(repr=False)
    digest: str
    counts: Mapping[str, int] = field(repr=False)
    script: tuple[tuple[float, Fault], ...] = field(repr=False)
    duration_us: int
    _result: T | None = field(repr=False, alias="result")

    @property
    def result(self) -> T:
        """What the scenario returned. Raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # it is there if there was no error

    def timeline(self, path: str | os.PathLike[str]) -> None:
        """Draw the trace: write a page for a browser, with a lane for each node; it needs nothing else."""
        from dtimer.sim.show.timeline import timeline_html

        Path(path).write_text(timeline_html(self.trace, title=f"dtimer simulation, seed {self.seed}"), encoding="utf-8")


class Simulation:
    """A simulated cluster: real timers, each in a process of its own, on a virtual clock.

    The same seed, programs and scenario give the same run, byte for byte, on every machine.

    Args:
        seed: decides everything that chance decides.
        nodes: how many there are, named ``n1``, ``n2`` and so on; or their names.
        faults: what goes wrong by itself.
        record: whether a trace is kept; without one a run is faster.
        keep: how many records of it stay in memory.
        trace_file: gets all records, as lines of JSON.
        observers: see what happens while it happens.
        raise_asserts: an AssertionError that a handler raises ends the run, as pytest's outcomes always do; else it
            merely fails the event, like any other error.

    Raises:
        InvalidArgument: an argument is not as described.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: int | Sequence[str] = 3,
        faults: Faults | None = None,
        record: bool = True,
        keep: int = KEPT_DEFAULT,
        trace_file: TextIO | None = None,
        observers: Sequence[Observer] = (),
        raise_asserts: bool = True,
    ) -> None:
        if isinstance(nodes, int):
            count = _validation.whole(nodes, "nodes", least=0, most=NODES_MAX)
            names = tuple(f"n{number}" for number in range(1, count + 1))
        else:
            names = tuple(_validation.name(name, "nodes") for name in _validation.many(nodes, "nodes"))
        wrong = [name for name in names if name in _RESERVED]
        if wrong or len(set(names)) < len(names):
            raise InvalidArgument(
                "nodes", f"must be different names, none of {', '.join(sorted(_RESERVED))}, not {safe_repr(nodes)}"
            )
        self.seed = _validation.seed(seed)
        self.nodes = names
        self.faults = Faults() if faults is None else faults
        self._record = record
        self._keep = _validation.whole(keep, "keep", least=0)
        self._trace_file = trace_file
        self._observers = observers
        self._raise_asserts = _validation.flag(raise_asserts, "raise_asserts")
        self._applications: dict[str, Application] = {}

    def node(self, application: ApplicationT) -> ApplicationT:
        """The program of every node that has none of its own; a decorator.

        It is run in each node's process, and again in each process that is started after that one has ended.
        One that raises a :class:`dtimer.BackendError` is started again a second later; other errors end the run.
        """
        for name in self.nodes:
            self._applications.setdefault(name, application)
        return application

    def node_named(self, *names: str) -> Callable[[ApplicationT], ApplicationT]:
        """The program of some nodes; a decorator."""
        unknown = [name for name in names if name not in self.nodes]
        if unknown:
            raise InvalidArgument("names", f"must be of {', '.join(self.nodes)}, not {safe_repr(unknown[0])}")

        def register(application: ApplicationT) -> ApplicationT:
            for name in names:
                self._applications[name] = application
            return application

        return register

    def run(self, scenario: Scenario[T]) -> Run[T]:
        """Start the nodes and carry out a scenario; when it returns, all is over.

        Raises:
            SimStuck: nothing can ever happen again.
            BaseException: what the scenario raised, or a program.
        """
        run = self.attempt(scenario)
        if run.error is not None:
            raise run.error
        return run

    def attempt(self, scenario: Scenario[T]) -> Run[T]:
        """As :meth:`run`, but what was raised is the run's `error`."""
        return _Attempt(self, scenario).run()

    # What an attempt needs, and nobody else.

    def _parts(
        self,
    ) -> tuple[bool, int, TextIO | None, Sequence[Observer], bool, Mapping[str, Application]]:
        return (
            self._record,
            self._keep,
            self._trace_file,
            self._observers,
            self._raise_asserts,
            self._applications,
        )


class _Attempt(Generic[T]):
    """One run of a simulation."""

    def __init__(self, simulation: Simulation, scenario: Scenario[T]) -> None:
        record, keep, file, observers, self._raise_asserts, applications = simulation._parts()  # pyright: ignore[reportPrivateUsage]
        seed = simulation.seed
        rng = Rng(seed)
        self._seed = seed
        self._scenario = scenario
        self._loop = SimLoop(seed)
        self._trace = Trace(lambda: self._loop.now_us, keep=keep, file=file)
        self._counts = Counts()
        # In this order: what an observer finds is noted after the record of what it found it in.
        own = (self._trace, self._counts) if record else (self._counts,)
        server = Server(self._loop, rng.of("store"), start_us=_START_US, observers=[*own, *observers])
        self._observers = server.observers
        host = partial(Host, server=server, start_us=_START_US, on_end=self._ended, on_caught=self._caught)
        self._client = host(CLIENT)
        self._hosts = {name: host(name) for name in simulation.nodes}
        for name, application in applications.items():
            self._hosts[name].application = application
        everybody = {**self._hosts, CLIENT: self._client}
        self._cluster = Cluster(server, everybody)
        self._injector = Injector(simulation.faults, self._cluster, simulation.nodes, rng.of("faults"))
        self._world = World(self._cluster, simulation.nodes, self._injector, self._counts)
        self._nodes = simulation.nodes

    def run(self) -> Run[T]:
        result: T | None = None
        error: BaseException | None = None
        for observer in self._observers:
            observer.on_note("world", "run", {"seed": self._seed, "nodes": list(self._nodes)})
        with _logged_to(self._observers, self._loop), _seldom_collecting():
            try:
                result = self._loop.run(self._main())
            except BaseException as raised:
                if not isinstance(raised, Exception) and not is_outcome(raised):
                    raise
                error = raised
        return Run(
            seed=self._seed,
            error=error,
            trace=self._trace.records,
            digest=self._trace.digest,
            counts=dict(self._counts.counts),
            script=tuple(self._injector.script),
            duration_us=self._loop.now_us,
            result=result,
        )

    async def _main(self) -> T:
        self._over: asyncio.Future[T] = self._loop.create_future()
        self._client.start()
        for host in self._hosts.values():
            if host.application is not None:
                host.start()
        task = self._client.process.create_task(self._carry_out(), name="the scenario")
        task.add_done_callback(self._done)
        result: T = await self._over
        return result

    async def _carry_out(self) -> T:
        return await self._scenario(self._world)

    def _done(self, task: asyncio.Task[T]) -> None:
        if self._over.done():
            return
        if task.cancelled():
            self._over.set_exception(asyncio.CancelledError("the scenario was cancelled"))
        elif (error := task.exception()) is not None:
            self._over.set_exception(error)
        else:
            self._over.set_result(task.result())

    def _ended(self, host: Host, error: BaseException | None) -> None:
        if error is None or isinstance(error, BackendError):
            self._cluster.ended(host, failed=error is not None)
        else:
            self._end_with(error, f"the program of {host.name!r}")

    def _caught(self, host: Host, error: BaseException) -> None:
        if is_for_the_test(error, raise_asserts=self._raise_asserts):
            self._end_with(error, f"a handler of {host.name!r}")

    def _end_with(self, error: BaseException, by: str) -> None:
        if not self._over.done():
            error.add_note(f"raised by {by} at {self._loop.now_us / SECOND_US:.6f} s")
            self._over.set_exception(error)


class _LogRecords(logging.Handler):
    """Shows log records to the observers."""

    def __init__(self, observers: Sequence[Observer], loop: SimLoop) -> None:
        super().__init__()
        self._observers = observers
        self._loop = loop

    @override
    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname, "message": record.getMessage()}
        for observer in self._observers:
            observer.on_note(self._loop.current.name, "log", fields)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """A run makes many small objects, few of them cyclic: looking for those as often as usual takes a third of it."""
    before = gc.get_threshold()
    if before[0]:  # else it never collects by itself
        gc.set_threshold(*map(max, before, GC_THRESHOLDS))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _logged_to(observers: Sequence[Observer], loop: SimLoop) -> Iterator[None]:
    """What dtimer logs in a simulation goes into the trace, and not to whoever reads the log of the real process."""
    logger = logging.getLogger("dtimer")
    handler = _LogRecords(observers, loop)
    propagate = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


__all__ = ["Run", "Scenario", "Simulation"]
