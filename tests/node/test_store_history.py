"""The clock bound and the history."""

from __future__ import annotations

from dtimer.limits import BRANCHES_MAX, CALLS_REMEMBERED_MAX, CLOCK_WINDOW_US
from dtimer.node.session import HistoryBreak, StoreHistory
from dtimer.node.store_clock import ClockBound
from dtimer.protocol.values import AcknowledgedCall, Applied, Branch


def test_before_the_first_reply_nothing_is_known() -> None:
    assert ClockBound().local_us(5) is None
    assert ClockBound().store_us(5) is None


def test_of_all_replies_the_fastest_counts() -> None:
    clock = ClockBound()
    clock.learn(1_000, 120, sent_us=0)
    clock.learn(2_000, 1_050, sent_us=1_000)
    clock.learn(3_000, 2_500, sent_us=1_000)

    assert clock.local_us(5_000) == 5_000 - 950
    assert clock.store_us(0) == 950


def test_a_bound_is_forgotten_after_one_to_two_windows() -> None:
    """Or a drifting clock would make it wrong."""
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(CLOCK_WINDOW_US, CLOCK_WINDOW_US, sent_us=0)
    assert clock.store_us(0) == 1_000

    clock.learn(2 * CLOCK_WINDOW_US, 2 * CLOCK_WINDOW_US, sent_us=0)

    assert clock.store_us(0) == 0


def test_another_clock_begins_with_nothing() -> None:
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.forget()

    assert clock.store_us(0) is None


def test_a_bound_that_a_reply_refutes_is_forgotten() -> None:
    """The store's clock was set back: by the old bound the node would come too early again and again."""
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(1_400, 1_000, sent_us=900)

    assert clock.store_us(0) == 400


def test_a_slow_reply_refutes_nothing() -> None:
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(1_900, 2_000, sent_us=900)

    assert clock.store_us(0) == 1_000


def reply(seq: int, *, epoch: str = "a", skew_us: int = 0) -> Applied[None]:
    return Applied(epoch=epoch, seq=seq, at_us=0, value=None, skew_us=skew_us)


def test_a_history_that_goes_on_is_no_finding() -> None:
    history = StoreHistory()
    assert history.saw(reply(5, skew_us=7), history.mark()) == HistoryBreak()
    assert history.saw(reply(5, skew_us=7), history.mark()) == HistoryBreak()
    assert history.saw(reply(9, skew_us=7), history.mark()) == HistoryBreak()


def test_a_reply_that_was_overtaken_is_no_finding() -> None:
    history = StoreHistory()
    history.saw(reply(5), history.mark())
    before = history.mark()
    history.saw(reply(9), before)

    assert history.saw(reply(8), before) == HistoryBreak()


def test_a_number_below_one_seen_before_the_request_means_lost_writes() -> None:
    history = StoreHistory()
    history.saw(reply(9), history.mark())

    assert history.saw(reply(8), history.mark()) == HistoryBreak(lost_writes=True)
    assert history.saw(reply(8), history.mark()) == HistoryBreak()


def test_another_epoch_means_lost_writes_once_for_all_requests_under_way() -> None:
    history = StoreHistory()
    history.saw(reply(9), history.mark())
    first, second, late = history.mark(), history.mark(), history.mark()

    assert history.saw(reply(1, epoch="b"), first) == HistoryBreak(lost_writes=True)
    assert history.saw(reply(2, epoch="b"), second) == HistoryBreak()
    assert history.saw(reply(10, epoch="a"), late) == HistoryBreak()
    assert history.epoch == "b"


def test_a_step_of_the_clock_is_told_by_its_size_once() -> None:
    history = StoreHistory()
    history.saw(reply(1, skew_us=10), history.mark())

    assert history.saw(reply(2, skew_us=25), history.mark()) == HistoryBreak(step_us=15)
    assert history.saw(reply(3, skew_us=25), history.mark()) == HistoryBreak()


class Client:
    """A history, and the server that answers."""

    def __init__(self, server: str = "s1-r") -> None:
        self.history = StoreHistory()
        self.server = server

    def call(self, seq: int, *ids: str, operation: str = "post") -> HistoryBreak:
        """A call is sent and answered."""
        done = ((operation, ids),) if ids else ()
        return self.history.saw(self._reply(seq), self.history.mark(), done)

    def late(self, seq: int, *ids: str, server: str) -> HistoryBreak:
        """A call is answered by a server that is not the newest."""
        newest, self.server = self.server, server
        finding = self.call(seq, *ids)
        self.server = newest
        return finding

    def told(self, seq: int, *branches: tuple[str, int]) -> HistoryBreak:
        value = tuple(Branch(*branch) for branch in branches)
        return self.history.compare_branches(Applied("a", seq, 0, value, branch=self.server))

    def _reply(self, seq: int) -> Applied[None]:
        return Applied("a", seq, 0, None, branch=self.server)


def acknowledged(id: str, seq: int, operation: str = "post") -> AcknowledgedCall:
    return AcknowledgedCall(operation, (id,), seq)


def test_of_what_was_acknowledged_in_a_branch_that_which_is_above_the_next_ones_number_is_lost() -> None:
    """O2: also when the number has been reached again since, by others or by this very call."""
    client = Client()
    client.call(5, "kept")
    client.call(6, "lost")
    client.server = "s2-r"

    assert client.call(6, "new") == HistoryBreak(elsewhere=True)
    assert client.told(9, ("s1-r", 0), ("s2-r", 5)) == HistoryBreak(lost_writes=True, calls=(acknowledged("lost", 6),))
    assert client.call(10, "newer") == HistoryBreak()
    client.server = "s3-r"
    client.call(10)
    assert client.told(10, ("s1-r", 0), ("s2-r", 5), ("s3-r", 9)).calls == (acknowledged("newer", 10),)


def test_a_server_that_has_lost_nothing_is_not_said_to_have() -> None:
    """O2: the promise of an append-only file that is always on disk, and of a planned failover."""
    client = Client()
    client.call(5, "kept")
    client.server = "s2-r"
    client.call(8, "new")

    assert client.told(8, ("s1-r", 0), ("s2-r", 7)) == HistoryBreak(restarted=True)
    assert client.call(9) == HistoryBreak()


def test_a_server_with_another_replication_id_alone_was_not_restarted() -> None:
    """O2: a master without replicas gets one after an hour."""
    client = Client()
    client.call(5, "kept")
    client.server = "s1-q"
    client.call(8)

    assert client.told(8, ("s1-r", 0), ("s1-q", 7)) == HistoryBreak()


def test_a_call_in_a_branch_that_is_lost_itself_is_lost() -> None:
    """O2: the server between had begun a branch, and died before that was safe."""
    client = Client()
    client.call(5, "kept")
    client.server = "s2-r"
    client.call(6, "lost")
    client.told(6, ("s1-r", 0), ("s2-r", 5))
    client.server = "s3-r"
    client.call(7)

    finding = client.told(7, ("s1-r", 0), ("s3-r", 5))
    assert finding == HistoryBreak(lost_writes=True, calls=(acknowledged("lost", 6),))


def test_of_several_restarts_at_once_the_first_one_counts() -> None:
    """O2: a client that was away finds a later branch with a higher number than that of its call."""
    client = Client()
    client.call(5, "lost")
    client.server = "s3-r"
    client.call(9)

    assert client.told(9, ("s1-r", 0), ("s2-r", 4), ("s3-r", 8)).calls == (acknowledged("lost", 5),)


def test_a_number_that_was_only_seen_tells_of_lost_writes_too() -> None:
    """O1, O2: a read had shown it; the branch of the server that answered may not even have begun."""
    client = Client()
    client.call(9)
    client.server = "s2-r"
    client.call(20)

    assert client.told(20, ("s0-r", 0), ("s2-r", 8)) == HistoryBreak(lost_writes=True)


def test_a_read_by_a_server_that_began_no_branch_says_nothing() -> None:
    client = Client()
    client.call(8)
    client.server = "s2-r"
    client.call(8)

    assert client.told(8, ("s0-r", 0), ("s2-r", 8)) == HistoryBreak(restarted=True)


def test_what_a_server_acknowledges_after_another_has_taken_over_is_lost() -> None:
    """O2: as when a master is cut off from its replicas, which have elected another, but not from this client."""
    client = Client()
    client.call(5, "kept")
    client.server = "s2-r"
    client.call(6)
    client.told(6, ("s1-r", 0), ("s2-r", 5))

    lost = (acknowledged("late", 6),)
    assert client.late(6, "late", server="s1-r") == HistoryBreak(lost_writes=True, calls=lost)
    assert client.late(5, "in time", server="s1-r") == HistoryBreak()
    assert client.call(7) == HistoryBreak()


def test_branches_that_another_server_tells_of_change_nothing() -> None:
    """The way to ask led to a server that was left; the next reply asks again."""
    client = Client()
    client.call(5, "kept")
    client.server = "s2-r"
    client.call(6)
    client.told(6, ("s1-r", 0), ("s2-r", 5))
    client.server = "s3-r"
    assert client.call(7) == HistoryBreak(elsewhere=True)

    client.server = "s1-r"
    assert client.told(9, ("s1-r", 0)) == HistoryBreak()
    client.server = "s3-r"
    assert client.call(7) == HistoryBreak(elsewhere=True)
    assert client.told(7, ("s1-r", 0), ("s2-r", 5), ("s3-r", 6)) == HistoryBreak(restarted=True)


def test_a_namespace_that_is_another_one_has_lost_all_that_is_known() -> None:
    client = Client()
    client.call(5, "lost")
    client.server = "s2-r"

    finding = client.history.saw(Applied("b", 1, 0, None, branch="s2-r"), client.history.mark(), [("post", ("new",))])
    assert finding == HistoryBreak(lost_writes=True, calls=(acknowledged("lost", 5),))


def test_a_number_that_goes_back_on_one_server_names_the_calls() -> None:
    client = Client()
    client.call(5, "kept")
    client.call(7, "lost")

    assert client.call(6, "new") == HistoryBreak(lost_writes=True, calls=(acknowledged("lost", 7),))


def test_a_server_that_does_not_tell_its_name_may_have_lost_what_was_acknowledged_before() -> None:
    """O2: said once, and of calls only."""
    client = Client("?1")
    client.call(5, "a")
    client.server = "?2"
    assert client.call(8, "b") == HistoryBreak(restarted=True, perhaps_lost=(acknowledged("a", 5),))
    client.server = "?3"
    assert client.call(7, "c") == HistoryBreak(lost_writes=True, calls=(acknowledged("b", 8),))
    assert client.late(7, "d", server="?2") == HistoryBreak(restarted=True, perhaps_lost=(acknowledged("d", 7),))
    assert client.call(9) == HistoryBreak()


def test_what_is_remembered_has_a_bound() -> None:
    client = Client()
    client.call(1, "first")
    for seq in range(2, 2 + 2 * CALLS_REMEMBERED_MAX // 512):
        client.call(seq, *map(str, range(512)))
    client.server = "s2-r"
    client.call(0)
    calls = client.told(1, ("s1-r", 0), ("s2-r", 0)).calls

    assert sum(len(call.ids) for call in calls) == CALLS_REMEMBERED_MAX
    assert calls[-1].seq == 2 + 2 * CALLS_REMEMBERED_MAX // 512 - 1


def test_a_call_outlives_more_branches_than_are_kept() -> None:
    """O2: with the oldest branch goes the proof that it was kept; it stands in the next one as well."""
    client = Client("s0-r")
    client.call(1, "kept")
    branches = [("s0-r", 0)]
    for number in range(1, 3 * BRANCHES_MAX):
        client.server = f"s{number}-r"
        client.call(number + 1)
        branches.append((client.server, number + 1))
        assert client.told(number + 1, *branches[-BRANCHES_MAX:]) == HistoryBreak(restarted=True)
