"""What all measures share: the server, the peers' processes, how much is done, and where figures go."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import define, evolve, field, frozen

from benchmarks.catalogue import OURS, Peer
from benchmarks.process import Broken, Command, PeerProcess, TooSlow, Unsupported
from benchmarks.server import Server

NAMESPACE: Final = "bench"
FAR_MS: Final = 3_600_000


@frozen
class Sizes:
    """How much is done for each figure.

    Attributes:
        rounds: how often everybody takes their turn.
        steady_rounds: the same for memory and idle work, which hardly differ from one round to the next.
        turns: in a round, of each way to post. A machine's speed changes by a quarter from one second to the next,
            most of all for a lone caller, which mostly wakes up: short turns side by side say more than a long one.
        posts_one: timers posted in a turn by one caller that waits for each.
        posts_many: timers posted in a turn by many callers, or in batches.
        drain: timers that are due at once.
        drains: how events are taken: the number of handlers at a time, or a `block` for each event.
        pace_s: for how long a steady rate is kept up.
        quiet_s: the same for two timers a second.
        memory: pending timers whose memory is measured.
        idle_s: for how long an idle system is watched.
        backlogs: numbers of pending timers that are compared, the smallest first.
        namespaces: numbers of namespaces that are compared.
        nodes: the same for nodes in one namespace.
        delay_max_ms: of timers that are posted at a steady rate.
        lead_s: between the last post and the due time of many: workers join meanwhile, and settle.
        sim_hours: virtual time of a simulated day, which is shown as if it was whole, and of idling.
        side_by_side: also where the goals do not compare, everybody is measured.
    """

    rounds: int
    steady_rounds: int
    turns: int
    posts_one: int
    posts_many: int
    drain: int
    drains: Sequence[str]
    pace_s: float
    quiet_s: float
    memory: int
    idle_s: float
    backlogs: Sequence[int]
    namespaces: Sequence[int]
    nodes: Sequence[int]
    delay_max_ms: int
    lead_s: float
    sim_hours: float
    side_by_side: bool


FULL: Final = Sizes(
    rounds=3,
    steady_rounds=1,
    turns=4,
    posts_one=2_000,
    posts_many=10_000,
    drain=20_000,
    drains=("100", "256", "8", "block"),
    pace_s=8,
    quiet_s=15,
    memory=100_000,
    idle_s=20,
    backlogs=(10_000, 1_000_000),
    namespaces=(1, 10, 100, 1_000),
    nodes=(1, 10, 50),
    delay_max_ms=5_000,
    lead_s=2.0,
    sim_hours=24,
    side_by_side=True,
)
QUICK: Final = Sizes(
    rounds=1,
    steady_rounds=1,
    turns=1,
    posts_one=1_000,
    posts_many=4_000,
    drain=3_000,
    drains=("100", "256", "8", "block"),
    pace_s=1,
    quiet_s=2,
    memory=10_000,
    idle_s=1.2,
    backlogs=(10_000, 100_000),
    namespaces=(1, 100),
    nodes=(1, 50),
    delay_max_ms=1_000,
    lead_s=1.0,
    sim_hours=0.5,
    side_by_side=False,
)
AGAINST: Final = Sizes(
    rounds=12,
    steady_rounds=12,
    turns=2,
    posts_one=1_000,
    posts_many=6_000,
    drain=6_000,
    drains=("100", "256", "8"),
    pace_s=2,
    quiet_s=4,
    memory=10_000,
    idle_s=5,
    backlogs=(),
    namespaces=(),
    nodes=(),
    delay_max_ms=800,
    lead_s=0.5,
    sim_hours=2.4,
    side_by_side=True,
)
"""Short turns, and many: two builds are told apart by what differs from one turn to the next."""
QUICK_AGAINST: Final = evolve(
    AGAINST,
    rounds=2,
    steady_rounds=2,
    turns=1,
    posts_one=200,
    posts_many=1_000,
    drain=500,
    pace_s=0.5,
    quiet_s=1,
    memory=2_000,
    idle_s=1,
    sim_hours=0.2,
)


@frozen
class Failure:
    """A run from which no figure came.

    Attributes:
        broken: something went wrong, and the whole benchmark says so; otherwise the peer just cannot do as much.
    """

    figure: str
    subject: str
    reason: str
    broken: bool


@define
class Figures:
    """All that was measured: for each figure and subject the values of its rounds.

    Attributes:
        turn: the one that is on.
        turns: for each value the turn in which it was measured; a broken one has none.
    """

    values: dict[str, dict[str, list[float]]] = field(factory=dict)
    turn: int = 0
    turns: dict[str, dict[str, list[int]]] = field(factory=dict)
    failures: list[Failure] = field(factory=list)
    lateness_ms: dict[str, dict[str, list[float]]] = field(factory=dict)
    """Of all that fired, sorted; for the plots."""

    def add(self, figure: str, subject: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(subject, []).append(value)
        self.turns.setdefault(figure, {}).setdefault(subject, []).append(self.turn)

    def median(self, figure: str, subject: str) -> float | None:
        values = self.values.get(figure, {}).get(subject)
        return statistics.median(values) if values else None

    def ratios(self, figure: str, subject: str, base: str) -> list[float]:
        """One subject's values to another's, for each turn in which both have one."""
        ours, theirs = (
            dict(zip(self.turns[figure][key], values, strict=True))
            if (values := self.values.get(figure, {}).get(key))
            else {}
            for key in (subject, base)
        )
        return [value / theirs[turn] for turn, value in ours.items() if theirs.get(turn)]


@define
class Bench:
    """One run of the benchmark.

    Attributes:
        commands: for each peer that could be set up, what starts its process.
    """

    server: Server
    sizes: Sizes
    peers: Sequence[Peer]
    commands: Mapping[str, Command]
    figures: Figures = field(factory=Figures)

    @property
    def ours(self) -> Peer:
        """That of the working tree."""
        return next(peer for peer in self.peers if peer.key == OURS)

    def compared(self, *keys: str) -> list[Peer]:
        """Those of some peers that are measured where no goal compares them; ours always."""
        return [peer for peer in self.peers if peer.ours or (peer.key in keys and self.sizes.side_by_side)]

    def in_turn(self, peers: Iterable[Peer], turns: int = 1, rounds: int | None = None) -> Iterator[tuple[int, Peer]]:
        """Ours, theirs, theirs, ours: one round after the other, not one peer after the other.

        Args:
            turns: how many everybody has in a round.
            rounds: how many there are, if not as many as usual.
        """
        order = list(peers)
        for number in range((self.sizes.rounds if rounds is None else rounds) * turns):
            self.figures.turn = number
            for peer in order if number % 2 == 0 else reversed(order):
                yield number, peer

    @contextmanager
    def process(self, peer: Peer, namespace: str = NAMESPACE) -> Generator[PeerProcess]:
        """A process of a peer, connected."""
        with PeerProcess(self.commands[peer.key], peer.title) as process:
            reply = process.ask("open", url=self.server.url, namespace=namespace, settings=peer.settings)
            versions = reply["versions"]
            assert isinstance(versions, dict)
            peer.versions.update({str(name): str(version) for name, version in versions.items()})
            peer.versions["runtime"] = str(reply["runtime"])
            yield process

    @contextmanager
    def attempt(self, figure: str, subject: str) -> Generator[None]:
        """A run that may be broken: that is told and noted, and the others go on."""
        print(f"  {figure}: {subject}", end="", file=sys.stderr, flush=True)
        start_s = time.monotonic()
        try:
            yield
        except (Broken, TooSlow) as error:
            ours = any(peer.ours for peer in self.peers if peer.key == subject)
            broken = isinstance(error, Broken) or ours
            self.figures.failures.append(Failure(figure, subject, str(error), broken))
            print(f"  {'BROKEN' if broken else 'no figure'}: {error}", file=sys.stderr, flush=True)
        except Unsupported:
            print("  has none", file=sys.stderr, flush=True)
        else:
            print(f"  {time.monotonic() - start_s:.1f} s", file=sys.stderr, flush=True)


def post(
    process: PeerProcess,
    how: str,
    num: int,
    *,
    due_ms: int | None = None,
    first: int = 0,
    spread_ms: int = 1000,
    step_ms: int = 0,
    callers: int = 64,
    batch: int = 500,
) -> dict[str, object]:
    """Let a process post timers; far ones, unless it is said when they are due."""
    return process.ask(
        "post",
        how=how,
        num=num,
        first=first,
        due_ms=int(time.time() * 1000) + FAR_MS if due_ms is None else due_ms,
        spread_ms=spread_ms,
        step_ms=step_ms,
        callers=callers,
        batch=batch,
    )


def best_how(peer: Peer) -> str:
    """How a peer posts many timers fastest."""
    return "batch" if peer.batches else "callers"


Measure = Callable[[Bench], None]
