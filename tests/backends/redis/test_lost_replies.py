"""The reply of each operation is lost in turn: nothing is sent twice that must not be, and the errors are true (F1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import pytest
from attrs import define
from redis.asyncio import Redis

from dtimer import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    DTimer,
    ExtendOutcome,
    NodeFenced,
    NodeIdDisputed,
    OutcomeUnknown,
    Post,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
    StoreUnreachable,
)
from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.partition import RedisPartition
from dtimer.limits import SECOND_US
from dtimer.protocol.values import (
    After,
    Applied,
    EventData,
    EventState,
    Extension,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    Window,
)
from support.proxy import Proxy, Which
from support.scripts import make_known, runs
from support.servers import Server
from support.waiting import until
from support.worlds import Node, without_blocks

pytestmark = pytest.mark.any_server

T = TypeVar("T")

MEMBER = Member("n", "1")
FAR_MS = 60_000
MINUTE_US = 60 * SECOND_US


@define
class Scene:
    """A namespace with one event in each state, over a proxy.

    Attributes:
        near: a backend that reaches the server directly.
        far: one that goes through the proxy.
        receipt: of the unconfirmed event `u`; `s` is scheduled, `d` is a dead letter.
    """

    server: Server
    proxy: Proxy
    near: RedisBackend
    far: RedisBackend
    receipt: Receipt

    def num_runs(self) -> int:
        """How many scripts the server was asked to run."""
        return self.server.num_calls("evalsha") + self.server.num_calls("eval")


def new(id: str, due_us: int, **more: Any) -> NewEvent:
    return NewEvent(EventData(id=id, payload=b"1", **more), After(due_us))


@pytest.fixture
async def scene(server: Server) -> AsyncIterator[Scene]:
    async with Proxy(server.port) as proxy:
        near = RedisBackend(Redis(port=server.port), "lost")
        far = RedisBackend(Redis(port=proxy.port), "lost")
        with server.client() as client:
            make_known(client, list(CALLS))
        await near.join(MEMBER)
        await near.post([new("d", 0, dead_letter=True), new("u", 1, max_retries=1), new("s", MINUTE_US)])
        claimed = (await near.claim(MEMBER, room=8, confirm_timeout_us=MINUTE_US, nonce="c1")).value
        dead, held = claimed.deliveries
        await near.bury(dead.receipt, detail="test")
        await far.open()
        yield Scene(server, proxy, near, far, held.receipt)
        await far.close()
        await near.close()


Call: TypeAlias = Callable[[RedisBackend, Receipt], Awaitable[Applied[Any]]]

CALLS: Final[dict[str, tuple[bool, Call]]] = {
    "open": (True, lambda b, r: b.open()),
    "post": (False, lambda b, r: b.post([new("p", MINUTE_US)])),
    "cancel": (False, lambda b, r: b.cancel(["s"])),
    "change_delay": (False, lambda b, r: b.change_delay("s", delay_us=1)),
    "claim": (
        False,
        lambda b, r: b.claim(MEMBER, room=8, confirm_timeout_us=1, nonce="c2", confirming=[r], pulse=True),
    ),
    "confirm": (True, lambda b, r: b.confirm([r])),
    "confirm_newest": (False, lambda b, r: b.confirm_newest("u")),
    "release": (True, lambda b, r: b.release(r, how=Release.COUNTED, delay_us=0)),
    "extend": (True, lambda b, r: b.extend([Extension(r, 1)])),
    "bury": (True, lambda b, r: b.bury(r, detail="why")),
    "peek": (True, lambda b, r: b.peek("s")),
    "upcoming": (True, lambda b, r: b.upcoming(Window(), limit=8)),
    "join": (True, lambda b, r: b.join(Member("m", "1"))),
    "leave": (True, lambda b, r: b.leave(MEMBER)),
    "dead_letters": (True, lambda b, r: b.dead_letters(None, limit=8)),
    "resend": (False, lambda b, r: b.resend(LetterName("d"), due=After(0), if_exists=IfExists.REPLACE)),
    "discard": (False, lambda b, r: b.discard([LetterName("d")])),
    "inspect": (True, lambda b, r: b.inspect()),
    "branches": (True, lambda b, r: b.branches()),
}
"""For each operation whether it is safe to repeat, and how it is called."""

READS = {"open", "peek", "upcoming", "dead_letters", "inspect", "branches"}


def test_no_operation_is_missing() -> None:
    """A new one shall not escape."""
    known = vars(RedisPartition) | vars(RedisBackend)
    methods = {name for name, value in known.items() if callable(value) and not name.startswith("_")}

    assert methods - set(CALLS) == {
        *("close", "perform", "purge", "wakeups", "examine", "examine_server", "post_durably"),
        "reset_clock",  # told by its own tests: it goes on where it was
    }


@pytest.mark.parametrize("operation", CALLS)
async def test_an_operation_whose_reply_is_lost_ran_once_and_says_that_it_may_have(
    scene: Scene, operation: str
) -> None:
    """redis-py's own default would run it up to eleven times, and report success."""
    safe, call = CALLS[operation]
    seq = (await scene.near.open()).seq
    before = scene.num_runs()
    scene.proxy.drop_reply_and_cut()

    with pytest.raises(OutcomeUnknown) as caught:
        await call(scene.far, scene.receipt)

    assert scene.num_runs() == before + 1
    assert (caught.value.operation, caught.value.safe_to_repeat) == (operation, safe)
    assert str(caught.value).startswith(f"{operation}: ")
    assert (await scene.near.open()).seq == seq + (operation not in READS)


@pytest.mark.parametrize("operation", CALLS)
async def test_an_operation_that_never_arrived_says_the_same(scene: Scene, operation: str) -> None:
    """From here it looks the same: the request was sent, and no reply came."""
    safe, call = CALLS[operation]
    seq = (await scene.near.open()).seq
    before = scene.num_runs()
    scene.proxy.stall()
    arrived = b"EVALSHA"
    task = asyncio.ensure_future(call(scene.far, scene.receipt))
    await until(lambda: any(pair.sent.count(arrived) > 1 for pair in scene.proxy._pairs))
    scene.proxy.cut()

    with pytest.raises(OutcomeUnknown) as caught:
        await task

    assert scene.num_runs() == before
    assert (caught.value.operation, caught.value.safe_to_repeat) == (operation, safe)
    assert (await scene.near.open()).seq == seq


@pytest.mark.parametrize("operation", ["post", "claim", "upcoming"])
async def test_a_server_that_does_not_know_the_script_runs_it_once(scene: Scene, operation: str) -> None:
    """The server's answer that it does not know it says that nothing ran; only then its source is sent."""
    _, call = CALLS[operation]
    with scene.server.client() as client:
        client.script_flush()
    seq = (await scene.near.open()).seq
    # The source fills all that the proxy remembers.
    scene.proxy.drop_reply_and_cut(lambda sent: b"EVALSHA" not in sent)

    with pytest.raises(OutcomeUnknown, match=operation):
        await call(scene.far, scene.receipt)

    assert (await scene.near.open()).seq == seq + (operation not in READS)


LARGE: Final = b"1" * (32 << 20)
"""No socket's buffers hold so much."""


@pytest.mark.parametrize("end", ["cut", "timeout"])
async def test_a_request_that_has_not_left_this_host_whole_was_not_applied(scene: Scene, end: str) -> None:
    """A server runs a command when it has all of it, so the rest that is still here says that it did not."""
    far = RedisBackend(Redis(port=scene.proxy.port), "lost", request_timeout=30 if end == "cut" else 0.5)
    await far.open()
    scene.proxy.stall()
    task = asyncio.ensure_future(far.post([NewEvent(EventData(id="large", payload=LARGE), After(MINUTE_US))]))
    await until(lambda: any(b"1" * 64 in pair.sent for pair in scene.proxy._pairs))
    if end == "cut":
        scene.proxy.cut()

    with pytest.raises(StoreUnreachable) as caught:
        await task

    assert caught.value.safe_to_repeat
    scene.proxy.cut()
    assert await payload_of(scene, "large") is None
    await far.close()


async def test_a_large_post_is_repeated_when_its_connection_breaks_under_it(scene: Scene) -> None:
    timer = DTimer(scene.far, payload_max_bytes=len(LARGE) + 2)
    scene.proxy.stall()
    task = asyncio.ensure_future(timer.post("1" * len(LARGE), FAR_MS, id="large", if_exists="error"))
    await until(lambda: any(b"1" * 64 in pair.sent for pair in scene.proxy._pairs))
    scene.proxy.pass_on()
    scene.proxy.cut()

    assert (await task).outcome is PostOutcome.CREATED


# --- another client in between ---------------------------------------------------------------------------------------


async def lost_while(
    scene: Scene, which: str | Which, call: Awaitable[T], meanwhile: Callable[[], Awaitable[Any]]
) -> T:
    """What a call comes to whose reply is lost, and that hears of it only when another client has acted."""
    carries = runs(which) if isinstance(which, str) else which
    swallowed = scene.proxy.swallow_reply(carries)
    task = asyncio.ensure_future(call)
    await swallowed.wait()
    await meanwhile()
    scene.proxy.cut(carries)
    return await task


async def payload_of(scene: Scene, id: str) -> bytes | None:
    """What the live event of this id carries; None if there is none."""
    seen = (await scene.near.peek(id)).value
    return None if seen is None else seen.event.payload


async def test_a_lost_post_is_not_posted_again_when_another_has_cancelled_it(scene: Scene, timer: DTimer) -> None:
    """E2: a cancelled event is never delivered."""

    async def cancel() -> None:
        assert (await scene.near.cancel(["cart-7"])).value == (CancelOutcome.CANCELLED,)

    with unknown("post"):
        await lost_while(scene, "post", timer.post("cart", FAR_MS, id="cart-7"), cancel)

    assert await payload_of(scene, "cart-7") is None


async def test_a_lost_cancel_does_not_end_what_another_has_posted(scene: Scene, timer: DTimer) -> None:
    """At least once: the new event was acknowledged."""

    async def post() -> None:
        assert (await scene.near.post([new("s", MINUTE_US, max_retries=5)])).value == (PostOutcome.CREATED,)

    with unknown("cancel"):
        await lost_while(scene, "cancel", timer.cancel("s"), post)

    assert await payload_of(scene, "s") == b"1"


async def test_a_lost_post_does_not_replace_what_another_has_posted(scene: Scene, timer: DTimer) -> None:
    """P3: the last of two posts under one id stands."""

    async def post() -> None:
        assert (await scene.near.post([new("y", MINUTE_US)])).value == (PostOutcome.REPLACED,)

    with unknown("post"):
        await lost_while(scene, "post", timer.post("v1", FAR_MS, id="y"), post)

    assert await payload_of(scene, "y") == b"1"


async def test_a_lost_join_does_not_fence_who_has_joined_since(scene: Scene) -> None:
    """N1: the later of two under one node id stands, and the earlier one hears of it."""
    await scene.near.leave(MEMBER)
    node = Node(DTimer(scene.far, node_id="j"))
    node.timer.on("event", node.events.append)
    node.timer.on("error", without_blocks(node.errors.append))
    later = DTimer(scene.near, node_id="j")
    later.on("event", lambda event: None)

    await lost_while(scene, "join", node.timer.join(), later.join)

    await until(lambda: [type(error) for error in node.errors] == [NodeFenced])
    assert not node.timer.joined
    (member,) = (await scene.near.inspect()).value.ring
    await later.leave()
    assert not (await scene.near.inspect()).value.ring, "the member was the later one"
    assert member.node == "j"


# --- through a timer -------------------------------------------------------------------------------------------------


@pytest.fixture
async def timer(scene: Scene) -> DTimer:
    """One that has not joined, behind the proxy."""
    return DTimer(scene.far)


async def lost(scene: Scene, operation: str, call: Awaitable[Any], *, times: int = 1) -> Any:
    """What a call comes to, the first replies of which are lost."""
    for _ in range(times):
        scene.proxy.drop_reply_and_cut(runs(operation))
    return await call


def unknown(operation: str) -> Any:
    return pytest.raises(OutcomeUnknown, match=f"^{operation}: .*may have been applied; not safe to repeat: .* first$")


async def test_a_lost_look_is_repeated(scene: Scene, timer: DTimer) -> None:
    peeked = await lost(scene, "peek", timer.peek("s"))
    listed = await lost(scene, "upcoming", timer.upcoming(), times=2)
    letters = await lost(scene, "dead_letters", timer.dead_letters())

    assert peeked.id == "s"
    assert [entry.id for entry in listed] == ["s", "u"]
    assert [letter.id for letter in letters] == ["d"]


async def test_what_must_not_be_repeated_is_not(scene: Scene, timer: DTimer) -> None:
    """Applied once, said to be unknown, in the name of the backend's method."""
    calls: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("post", lambda: timer.post("p", FAR_MS)),
        ("post", lambda: timer.post_many([Post(payload=1, delay=FAR_MS, id="x", if_exists="error")])),
        ("cancel", lambda: timer.cancel("none")),
        ("confirm_newest", lambda: timer.confirm("u")),
        ("change_delay", lambda: timer.change_delay("s", FAR_MS)),
        ("resend", lambda: timer.resend("d", FAR_MS)),
        ("discard", lambda: timer.discard("d")),
    ]
    for operation, call in calls:
        before = scene.num_runs()
        with unknown(operation):
            await lost(scene, operation, call())
        assert scene.num_runs() == before + 1


async def test_after_an_unknown_outcome_the_truth_can_be_found_out(scene: Scene, timer: DTimer) -> None:
    with unknown("resend"):
        await lost(scene, "resend", timer.resend("d", FAR_MS))
    assert await timer.resend("d") is ResendOutcome.NOT_FOUND
    assert await timer.discard("d") is DiscardOutcome.NOT_FOUND
    assert await timer.peek("d") is not None

    with unknown("change_delay"):
        await lost(scene, "change_delay", timer.change_delay("d", 2 * FAR_MS))
    assert await timer.change_delay("d", FAR_MS) is ChangeOutcome.MOVED


@asynccontextmanager
async def joined(scene: Scene) -> AsyncIterator[Node]:
    """A node behind the proxy, to which the scene's own gives way."""
    await scene.near.leave(MEMBER)
    node = Node(DTimer(scene.far, node_id="j", confirm_timeout=0.5))
    node.timer.on("event", node.events.append)
    node.timer.on("error", without_blocks(node.errors.append))
    await node.timer.join()
    yield node
    await node.timer.leave()


async def given(scene: Scene, node: Node, id: str = "e") -> None:
    """The node is given an event, which it has to confirm within a minute."""
    await scene.near.post([new(id, 0, max_retries=1, confirm_timeout_us=MINUTE_US)])
    await until(lambda: id in node.ids)


async def test_a_lost_join_is_repeated(scene: Scene) -> None:
    """It finds itself joined: the incarnation is the same."""
    scene.proxy.drop_reply_and_cut(runs("join"))
    async with joined(scene) as node:
        assert [member.node for member in (await scene.near.inspect()).value.ring] == ["j"]
        await given(scene, node)
        assert not node.errors


async def test_a_lost_join_that_fences_a_member_tells_both(scene: Scene) -> None:
    """N1: what the first try did is told by its repetition."""
    earlier = Node(DTimer(scene.near, node_id="j"))
    earlier.timer.on("event", earlier.events.append)
    earlier.timer.on("error", without_blocks(earlier.errors.append))
    await earlier.timer.join()
    scene.proxy.drop_reply_and_cut(runs("join"))

    async with joined(scene) as node:
        await until(lambda: [type(error) for error in earlier.errors] == [NodeFenced])
        assert [type(error) for error in node.errors] == [NodeIdDisputed]


async def test_a_lost_leave_is_repeated(scene: Scene) -> None:
    async with joined(scene) as node:
        scene.proxy.drop_reply_and_cut(runs("leave"))
        await node.timer.leave()

        assert not node.errors
        assert not (await scene.near.inspect()).value.ring


async def test_a_lost_confirm_of_a_node_is_repeated_with_its_next_call(scene: Scene) -> None:
    """Wherever it rode, its outcome is that the event is gone."""
    async with joined(scene) as node:
        await given(scene, node)
        scene.proxy.drop_reply_and_cut(lambda sent: runs("confirm")(sent) or _carries(sent, node))

        assert await node.events[-1].confirm() is ConfirmOutcome.GONE
        assert await node.timer.peek("e") is None


def _carries(sent: bytes, node: Node) -> bool:
    """Whether the last command was a claim with the newest event's receipt aboard."""
    return runs("claim")(sent) and node.events[-1].receipt.nonce.encode() in sent[sent.rfind(b"EVALSHA") :]


async def test_a_lost_claim_gives_its_events_again_at_their_deadline(scene: Scene) -> None:
    """Nobody can tell whether it was applied, so it counts."""
    async with joined(scene) as node:
        timeout_us = SECOND_US // 5
        with scene.server.client() as client:
            scene.proxy.drop_reply_and_cut(lambda sent: runs("claim")(sent) and client.hexists("{lost}:states", "e"))
            await scene.near.post([new("e", 0, max_retries=1, confirm_timeout_us=timeout_us)])
            await until(lambda: "e" in node.ids)

        assert node.events[-1].num_retries == 1
        assert await node.events[-1].confirm() is ConfirmOutcome.CONFIRMED


async def test_a_lost_extend_is_repeated(scene: Scene) -> None:
    async with joined(scene) as node:
        await given(scene, node)
        assert await lost(scene, "extend", node.events[-1].extend(60)) is ExtendOutcome.EXTENDED


async def test_a_lost_release_or_burial_is_repeated_and_unknown_if_it_finds_its_own_trace(scene: Scene) -> None:
    """The receipt is void then, and the first try may have done that as well as anybody else."""
    async with joined(scene) as node:
        for id in ("e", "f"):
            await given(scene, node, id)
        released, buried = node.events[-2:]
        with pytest.raises(OutcomeUnknown, match=r"release: the reply was lost, and the repetition .* safe to repeat"):
            await lost(scene, "release", released.release(FAR_MS))
        with pytest.raises(OutcomeUnknown, match=r"^bury: the reply was lost"):
            await lost(scene, "bury", buried.bury("why"))

        assert await released.release(FAR_MS) is ReleaseOutcome.STALE
        assert await buried.bury("why") is BuryOutcome.NOT_FOUND
        assert "f" in [letter.id for letter in await node.timer.dead_letters()]


@pytest.mark.parametrize("operation", ["confirm", "release", "bury", "extend"])
async def test_what_a_receipt_fences_leaves_alone_what_another_has_posted(scene: Scene, operation: str) -> None:
    """It is repeated, and counts once at most."""
    async with joined(scene) as node:
        await given(scene, node)
        event = node.events[-1]
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "confirm": lambda: asyncio.ensure_future(event.confirm()),
            "release": lambda: event.release(0),
            "bury": lambda: event.bury("why"),
            "extend": lambda: event.extend(60),
        }

        async def post() -> None:
            await scene.near.post([new("e", MINUTE_US)])

        def carries(sent: bytes) -> bool:
            return runs(operation)(sent) or (operation == "confirm" and _carries(sent, node))

        task = asyncio.ensure_future(lost_while(scene, carries, calls[operation](), post))
        if operation == "extend":
            assert await task is ExtendOutcome.STALE
        else:
            with pytest.raises(OutcomeUnknown, match=f"^{operation}: "):
                await task
        seen = (await scene.near.peek("e")).value
        assert seen is not None
        assert (seen.delivery_number, seen.state) == (0, EventState.SCHEDULED)
