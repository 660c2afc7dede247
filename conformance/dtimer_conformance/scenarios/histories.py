"""Histories that nobody has thought of: any program, and many clients at once, replayed through the pure machine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from dtimer.limits import MILLISECOND_US, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import After, At, Extension, NewEvent, Receipt, Release, Window
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.client import Client, event, member
from dtimer_conformance.environment import START_US, Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.programs import Runner, Step, programs
from dtimer_conformance.scenario import Bench, experiment, scenario

EXAMPLES: Final = 100
SHRINK_S: Final = 15.0
"""So long a program that fails is made shorter; then the shortest so far must do."""
REAL_WAIT_MAX_US: Final = 200
"""In real time nobody waits for the days that a program lets pass."""

NEEDED: Final[dict[type[Operation[Any]], Feature]] = {
    op.ListDeadLetters: Feature.DEAD_LETTERS,
    op.Resend: Feature.DEAD_LETTERS,
    op.Discard: Feature.DEAD_LETTERS,
    op.Inspect: Feature.INSPECTION,
    op.ListBranches: Feature.BRANCHES,
}


@define
class _Trial:
    """Runs programs, and keeps the shortest that failed."""

    bench: Bench
    shortest: RuleBroken | None = None
    _length: int = 0
    _give_up_s: float = field(default=float("inf"))

    def run(self, program: list[Step]) -> None:
        if time.monotonic() > self._give_up_s:
            return
        try:
            self.bench.run(lambda env: carry_out(env, program))
        except RuleBroken as broken:
            if self.shortest is None:
                self._give_up_s = time.monotonic() + SHRINK_S
            if self.shortest is None or len(program) <= self._length:
                self.shortest, self._length = broken, len(program)
            raise


async def carry_out(env: Environment, program: list[Step]) -> None:
    """A program on a backend; what was recorded is judged when it has ended."""
    in_real_time = env.clock is None and not env.virtual

    async def wait(duration_us: int) -> None:
        if in_real_time:
            await asyncio.sleep(min(duration_us, REAL_WAIT_MAX_US) / SECOND_US)
        else:
            await env.wait(duration_us)

    def able(operation: Operation[object]) -> bool:
        needed = NEEDED.get(type(operation))
        return needed is None or needed in env.features

    leap = env.set_clock if Feature.CLOCK_LEAPS in env.features else None
    await Runner(env.store, wait, able, leap).run(program)


@experiment("O1", "P3", "D1", "E1", "W2", limit_s=90)
def any_program_does_what_the_machine_does(bench: Bench) -> None:
    """Whatever is asked in whatever order, every reply is that of the pure state machine, to the last field.

    Troubleshooting: the program is the shortest found. Read its last line first, then the rule of that operation.
    """
    trial = _Trial(bench)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        # The same programs each time, so that a report on a backend is one, and not chance.
        derandomize=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        verbosity=Verbosity.quiet,
    )
    @given(program=programs())
    def try_all(program: list[Step]) -> None:
        trial.run(program)

    try:
        try_all()
    except Exception:
        # Hypothesis also raises for failures that come and go, or that we no longer had the time for.
        if trial.shortest is None:
            raise
    if trial.shortest is not None:
        raise trial.shortest


IDS: Final = [f"e{n}" for n in range(6)]
NODES: Final = ["a", "b", "c"]


@define
class _User:
    """A client that asks for this and that, by dice of its own."""

    client: Client
    dice: random.Random
    receipts: list[Receipt]

    def operation(self) -> Callable[[], Any]:
        client, dice = self.client, self.dice
        id, node = dice.choice(IDS), dice.choice(NODES)
        delay_us = dice.choice((0, 0, 1, 500, MILLISECOND_US, SECOND_US))
        news = [
            NewEvent(event(dice.choice(IDS), max_retries=dice.choice((0, 2))), After(delay_us))
            for _ in range(dice.choice((1, 1, 3)))
        ]
        receipt = dice.choice(self.receipts) if self.receipts else Receipt(id, 1, "none")
        choices: list[Callable[[], Any]] = [
            lambda: client.post(news),
            lambda: client.post(news),
            lambda: self._claim(node),
            lambda: self._claim(node),
            lambda: client.confirm([receipt]),
            lambda: client.release(receipt, how=dice.choice(list(Release)), delay_us=delay_us),
            lambda: client.extend([Extension(receipt, 1000)]),
            lambda: client.cancel([id]),
            lambda: client.change_delay(id, delay_us=delay_us),
            lambda: client.confirm_newest(id),
            lambda: client.join(member(node)),
            lambda: client.leave(member(node)),
            lambda: client.peek(id),
            lambda: client.upcoming(Window(), limit=10),
        ]
        return dice.choice(choices)

    async def _claim(self, node: str) -> None:
        claimed = await self.client.come(node, self.dice.choice((0, 1, 3)), timeout_us=2 * MILLISECOND_US)
        self.receipts += [delivery.receipt for delivery in claimed.deliveries]


@scenario("O1", "F5", "T2", own_clock=True)
async def clients_at_once_make_one_history(env: Environment) -> None:
    """Overlapping operations of many clients replay in the order that their numbers claim, which agrees with real time.

    What was answered before another was sent comes before it; all else may come in any order, but in one.

    Troubleshooting: are number, time and effect of an operation fixed together, where no other can come between?
    """
    await env.listen(*NODES[:2])
    receipts: list[Receipt] = []
    users = [_User(await env.client(), random.Random(n), receipts) for n in range(6)]

    async def use(user: _User) -> None:
        for _ in range(50):
            await user.operation()()

    await asyncio.gather(*(use(user) for user in users))


LOST_MAX: Final = 4
"""For each the judge must try whether and where it was applied."""


@scenario("F1", "O1", own_clock=True)
async def operations_whose_replies_are_lost_happen_once_or_not_at_all(env: Environment) -> None:
    """Operations whose callers were cancelled in the middle were applied whole, once, in one place; or not at all.

    Troubleshooting: does your driver send a request again by itself, when its reply is late?
    """
    receipts: list[Receipt] = []
    users = [_User(await env.client(), random.Random(100 + n), receipts) for n in range(3)]
    canceller = await env.client()
    dice = random.Random(7)

    async def use(user: _User) -> None:
        for _ in range(25):
            await user.operation()()

    async def lose() -> None:
        for n in range(40):
            # Their effects do not depend on the time at which they were applied, which nobody knows.
            far = At(START_US * 2 + n)
            id = IDS[n % 6]
            post, cancel = canceller.post([NewEvent(event(id), far)]), canceller.cancel([id])
            chosen, other = (post, cancel) if dice.random() < 0.5 else (cancel, post)
            other.close()
            call = asyncio.ensure_future(chosen)
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            if len(env.recorder.lost) < LOST_MAX:
                call.cancel()
            await asyncio.wait([call])

    await asyncio.gather(lose(), *(use(user) for user in users))
