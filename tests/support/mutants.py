"""Small breaks of correct code. Under each, the scenarios of the rule it is named for must fail.

A mutant is a line of the source with another in its place. The ``original`` ones are the bugs of the Node dtimer 0.3.3.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Final

from attrs import frozen

import dtimer

ROOT: Final = Path(dtimer.__file__).parent


class Kind(Enum):
    """Where a mutant lives, and so how it is run."""

    MACHINE = "machine"
    """A simulator whose machine is broken; histories are replayed through the sound one."""
    LUA = "lua"
    """A Redis backend with a broken script, on a real server."""
    NODE = "node"
    """Sound stores, and a broken client side."""


@frozen
class Mutant:
    """One break.

    Attributes:
        rule: whose scenarios must fail.
        file: below the package ``dtimer``.
        sound: the text that is there, once.
        broken: what stands in its place.
        original: it is one of the original's bugs.
    """

    name: str
    rule: str
    kind: Kind
    file: str
    sound: str
    broken: str
    original: bool = False

    def source(self) -> str:
        """The broken source. Fails when the sound text is not there exactly once: then the mutant is out of date."""
        source = (ROOT / self.file).read_text(encoding="utf-8")
        assert source.count(self.sound) == 1, f"{self.name}: {source.count(self.sound)} times in {self.file}"
        return source.replace(self.sound, self.broken)


def _machine(rule: str, name: str, sound: str, broken: str, *, file: str = "machine", original: bool = False) -> Mutant:
    return Mutant(name, rule, Kind.MACHINE, f"semantics/{file}.py", sound, broken, original)


def _lua(rule: str, name: str, file: str, sound: str, broken: str, *, original: bool = False) -> Mutant:
    return Mutant(name, rule, Kind.LUA, f"backends/redis/lua/{file}.lua", sound, broken, original)


def _node(rule: str, name: str, file: str, sound: str, broken: str, *, original: bool = False) -> Mutant:
    return Mutant(name, rule, Kind.NODE, f"{file}.py", sound, broken, original)


MUTANTS: Final = (
    # --- time
    _machine("T3", "deliver early", "(horizon_us, _LAST_ID))]", "(horizon_us + 30_000, _LAST_ID))]"),
    _machine(
        "T4", "lose the order of equal delays", "max(self.last_us + 1, self._at_us)", "max(self.last_us, self._at_us)"
    ),
    _machine("T5", "the past is due in the past", "return max(now_us, min(due_us,", "return max(0, min(due_us,"),
    _machine("T2", "any time will do", "return host_us <= INSTANT_MAX_US and", "return", file="clock"),
    _machine("T2", "any skew will do", " and host_us + self.skew_us <= STORE_TIME_MAX_US", "", file="clock"),
    _machine(
        "T2",
        "a reset forgets times of day",
        "by_us = skew_us if entry.wall_skew_us is None else entry.wall_skew_us",
        "by_us = skew_us",
    ),
    _machine(
        "T2", "a reset leaves deadlines", "(skew_us if entry.number else by_us)", "(0 if entry.number else by_us)"
    ),
    _machine(
        "T2",
        "a time of day outlives a change of delay",
        "        entry.due_us, entry.wall_skew_us = due_us, None\n",
        "        entry.due_us = due_us\n",
    ),
    _machine("T6", "a time of day knows no skew", "due.due_us + self._skew_us", "due.due_us"),
    _machine("T6", "a time has no end", "min(due_us, STORE_TIME_MAX_US)", "due_us"),
    _machine(
        "O1", "a cancel has no number", "        self.seq += 1\n", "        self.seq += operation.method != 'cancel'\n"
    ),
    _machine(
        "O2",
        "a branch begins behind the call that begins it",
        "self._servers.begin(server, self.seq)",
        "self._servers.begin(server, self.seq + 1)",
    ),
    _machine(
        "O2",
        "an old connection begins a branch once more",
        "        if not is_a_name(server) or any(branch.server == server for branch in self.kept):\n",
        "        if not is_a_name(server) or self.kept[-1:] and self.kept[-1].server == server:\n",
        file="branches",
    ),
    _lua("O2", "a branch begins behind the call that begins it", "lib/ring", "(seq - 1))", "(seq))"),
    _lua("O2", "an unknown name begins a branch", "lib/namespace", "string.byte(server) == 63", "server == '?!'"),
    # --- posting
    _machine(
        "P1",
        "posting needs a member",
        "        self._insert(event.id, _Entry(event,",
        "        if self._ring.members():\n            self._insert(event.id, _Entry(event,",
    ),
    _machine("P3", "keep replaces", "if if_exists is not IfExists.REPLACE:", "if if_exists is IfExists.ERROR:"),
    _machine(
        "P4",
        "lose a trailing newline",
        "return Delivery(\n            event=event,",
        "return Delivery(\n            event=evolve(event, payload=event.payload.strip()),",
    ),
    _machine(
        "P5", "apply a batch backwards", "for new in operation.events)", "for new in operation.events[::-1])[::-1]"
    ),
    _machine(
        "P7",
        "deliver what expired",
        "expires_after_us is not None and self._at_us >",
        "expires_after_us is None and 0 >",
    ),
    _machine(
        "P7",
        "keep the expiry of what is moved after a delivery",
        "        entry.due_us, entry.wall_skew_us = due_us, None\n",
        "        entry.due_us, entry.wall_skew_us = entry.due_us if entry.number else due_us, None\n",
    ),
    # --- delivery
    _machine(
        "D1",
        "give out what is unconfirmed",
        "self._move(event.id, entry, deadline_us)",
        "self._move(event.id, entry, at_us)",
    ),
    _machine("D2", "forget to count", "        entry.counted += 1\n", "        entry.counted += entry.number == 1\n"),
    _machine("D3", "forget a retry", "if event.requires_confirm:", "if event.requires_confirm and entry.number == 1:"),
    _machine(
        "D4",
        "ignore the event's own timeout",
        "if timeout_us is None else timeout_us)",
        "if timeout_us is None else operation.confirm_timeout_us)",
    ),
    _machine(
        "D5",
        "clear without bound",
        "else cleared == CLAIM_EXTRA_ENTRIES\n            size",
        "else False\n            size",
    ),
    _machine(
        "D6",
        "everybody takes everything",
        "self._at_us if entitled else self._at_us - UNARMED_OVERDUE_US",
        "self._at_us",
    ),
    _machine("D8", "arm a full node", "        if len(claimed.deliveries) >= operation.room:\n", "        if False:\n"),
    # --- ending
    _machine(
        "E1",
        "accept an old receipt",
        "(self.number, self.nonce) == (receipt.delivery_number, receipt.nonce)",
        "True",
        original=True,
    ),
    _machine(
        "E2",
        "an unconfirmed event cannot be cancelled",
        "        entry = self._remove(id)\n        if entry is None:\n            return CancelOutcome.NOT_FOUND\n",
        "        entry = self._live.get(id)\n        if entry is None or entry.nonce:\n            return CancelOutcome.NOT_FOUND\n        self._remove(id)\n",
        original=True,
    ),
    _machine(
        "E3",
        "change the delay of an unconfirmed event",
        "        if entry.nonce:\n            return ChangeOutcome.UNCONFIRMED\n",
        "",
        original=True,
    ),
    _machine(
        "E4",
        "a release counts when it should not",
        "            entry.counted -= 1\n",
        "            entry.counted -= 0\n",
    ),
    _machine(
        "E4",
        "a claim only says that it extends",
        "tuple(self._extend_one(extension) for extension in operation.extending)",
        "tuple(ExtendOutcome.EXTENDED for _ in operation.extending)",
    ),
    _machine(
        "E5",
        "exhausted events vanish",
        "                ended.append(self._end(id, reason))",
        "                self._end(id, reason)",
        original=True,
    ),
    _machine(
        "E5",
        "an error is forgotten",
        "        if operation.failure is not None:\n",
        "        if operation.failure is not None and operation.how is Release.COUNTED:\n",
    ),
    _machine("E5", "a silent delivery hides behind an error", "self.error.delivery_number < self.number", "False"),
    _machine(
        "E5",
        "a second burial replaces the first",
        "        self._letters[letter.name] =",
        "        if letter.id in self._last:\n            self.remove(self._last[letter.id])\n        self._letters[letter.name] =",
        file="dead_letters",
    ),
    _machine(
        "E4",
        "a failure gives the event back",
        "        if operation.how is Release.FAILED:\n            return ReleaseOutcome.RELEASED\n",
        "",
    ),
    # --- reading
    _machine(
        "R1",
        "an unconfirmed event is invisible",
        "return None if entry is None else _pending(entry)",
        "return None if entry is None or entry.nonce else _pending(entry)",
        original=True,
    ),
    _machine(
        "R2",
        "a page begins with the last one's end",
        "first = bisect_right(self._queue, (start.after_us, start.after_id))",
        "first = bisect_left(self._queue, (start.after_us, start.after_id))",
    ),
    # --- nodes
    _machine(
        "N1",
        "leave without handing over",
        "        self._nodes.pop(name, None)\n        if self.is_armed(name):\n            self.arm = None\n",
        "        self._nodes.pop(name, None)\n",
        file="ring",
        original=True,
    ),
    _machine(
        "N1",
        "a later join does not fence",
        "if node.incarnation == member.incarnation:",
        "if True:",
        file="ring",
    ),
    _machine(
        "N1",
        "a join that the store has lost fences its own node",
        "return ClaimStatus.NOT_JOINED if node.incarnation < member.incarnation else ClaimStatus.FENCED",
        "return ClaimStatus.FENCED",
        file="ring",
    ),
    _machine(
        "N1",
        "a join does not say that it fences another",
        "took_over = before is not None and before.expires_us > at_us",
        "took_over = False",
        file="ring",
    ),
    _machine(
        "N1",
        "a join is said to fence the dead",
        "took_over = before is not None and before.expires_us > at_us",
        "took_over = before is not None",
        file="ring",
    ),
    _machine("N3", "believe in the dead", "            if not reached:\n", "            if False:\n", file="ring"),
    _machine(
        "W2",
        "the head's announcement is forgotten",
        "while self.arm is None or head_us < self.arm.due_us:",
        "while self.arm is None:",
        file="ring",
    ),
    _machine(
        "W3",
        "an early wake-up strands the node",
        "            self.arm = Arm(claimer, head_us, max(head_us, at_us))\n        while",
        "            return ()\n        while",
        file="ring",
        original=True,
    ),
    _machine(
        "W4",
        "the same node is asked again and again",
        "        self._nodes[name].position = self._last_position\n",
        "",
        file="ring",
    ),
    _machine(
        "W5",
        "wait for the hung without end",
        "at_us > self.arm.at_us + ARM_GRACE_US",
        "False",
        file="ring",
        original=True,
    ),
    # --- failures
    _machine(
        "F1",
        "a repeated join fences the later one",
        "        if status is ClaimStatus.FENCED:\n            return JoinOutcome.FENCED\n",
        "",
        file="ring",
    ),
    _machine(
        "N1",
        "a repeated join does not say that it has fenced another",
        "JoinOutcome.TOOK_OVER if before.took_over else JoinOutcome.ALREADY_JOINED",
        "JoinOutcome.ALREADY_JOINED",
        file="ring",
    ),
    _machine(
        "F4",
        "one broken record stops the queue",
        "                self._bury_entry(id, EndReason.UNREADABLE)\n                continue",
        "                raise ValueError(id)",
    ),
    _machine("F4", "a claim shows all of a record", "entry.record[:UNREADABLE_SHOWN_BYTES]", "entry.record"),
    _machine(
        "F4",
        "a list shows all of a record",
        "raw=whole.raw[:UNREADABLE_SHOWN_BYTES]",
        "raw=whole.raw",
        file="dead_letters",
    ),
    _machine(
        "F4",
        "a refusal is followed by a wait at once",
        "if rounds < REFUSAL_ROUNDS and rest:",
        "if not members:",
        file="refusals",
    ),
    _machine(
        "F4",
        "a join begins no new round",
        "before.number + 1 if before.joins == joins else 1",
        "before.number + 1",
        file="refusals",
    ),
    _machine(
        "F4",
        "the last refusal counts as the first",
        "else 1, before.since_us, joins)",
        "else 1, at_us, joins)",
        file="refusals",
    ),
    _machine("F4", "an attempt forgives nothing", "            entry.refusals = None\n", ""),
    _machine(
        "F5",
        "cancelling one cancels its neighbour",
        "            del self._queue[bisect_left(self._queue, (entry.next_us, id))]",
        "            del self._queue[bisect_left(self._queue, (entry.next_us, id)) :][:2]",
    ),
    # --- the scripts
    _lua("T2", "the server's clock goes back", "lib/namespace", "at = math.max(at, last)", "last = math.min(at, last)"),
    _lua("T2", "any time will do", "lib/namespace", "if at > LIMITS.INSTANT_MAX_US or", "if"),
    _lua("T2", "any skew will do", "lib/namespace", " or at + skew > LIMITS.STORE_TIME_MAX_US then", " then"),
    _lua(
        "T2",
        "the sum of all numbers is checked",
        "lib/namespace",
        "math.max(seq, last, skew, position, dropped, arm_due, arm_at) <=",
        "seq + last + skew + position + dropped <=",
    ),
    _lua("T2", "a reset forgets times of day", "reset_some", "(not state_bytes and wall_skew or by)", "by"),
    _lua(
        "T2",
        "a time of day outlives a change of delay",
        "change_delay",
        "if read and read.wall_skew then",
        "if not read then",
    ),
    _lua("T6", "a time of day knows no skew", "lib/namespace", "number > 0 and number + skew", "number > 0 and number"),
    _lua(
        "T6",
        "a time has no end",
        "lib/namespace",
        "  if time > LIMITS.STORE_TIME_MAX_US then time = LIMITS.STORE_TIME_MAX_US end\n",
        "",
    ),
    _lua("T3", "deliver early", "claim", "local horizon = at\n", "local horizon = at + 30000\n"),
    _lua("T4", "equal scores", "lib/namespace", "last = last < at and at or last + 1", "last = math.max(last, at)"),
    _lua("N1", "a join does not say that it fences another", "join", "then outcome = 4 end", "then outcome = 1 end"),
    _lua("N1", "a join is said to fence the dead", "join", "node_info(node) and is_alive(node)", "node_info(node)"),
    _lua(
        "P3",
        "the old receipt ends the new event",
        "post",
        "if #void > 0 then redis.call('HDEL', STATES, unpack(void)) end\n",
        "",
        original=True,
    ),
    _lua(
        "P4",
        "re-encode the payload",
        "claim",
        "  local place = 3 * taken\n",
        "  bytes_of = string.gsub(bytes_of, '%[%]', '{}')\n  local place = 3 * taken\n",
        original=True,
    ),
    _lua(
        "D2",
        "num_retries is missing at first",
        "claim",
        "local now, numbers, deadline = tick(), '1 0', '0'",
        "local now, numbers, deadline = tick(), '1 1', '0'",
        original=True,
    ),
    _lua(
        "D3",
        "a deadline wakes nobody",
        "claim",
        "deadline = int(now + (record.timeout or timeout))",
        "deadline = int(now + (record.timeout or timeout) + 900000)",
        original=True,
    ),
    _lua(
        "D5",
        "an unbounded sweep",
        "claim",
        "if reason and cleared == LIMITS.CLAIM_EXTRA_ENTRIES then return false end\n",
        "",
        original=True,
    ),
    _lua(
        "E1",
        "double confirm",
        "lib/receipts",
        "    if gone[id] then\n      outcomes[i] = 3\n    elseif",
        "    if false then\n      outcomes[i] = 3\n    elseif",
    ),
    _lua(
        "E4",
        "a claim takes what it is to extend",
        "claim",
        "local extended = ARGV[extensions] and extend_all(extensions)",
        "local extended = ARGV[extensions] and string.rep('1', (#ARGV - extensions + 1) / 4)",
    ),
    _lua(
        "F1",
        "a repeated join fences the later one",
        "join",
        "elseif status == 3 then\n  outcome = 3\n",
        "",
    ),
    _lua(
        "P7",
        "keep the expiry of what is moved after a delivery",
        "change_delay",
        "  state.due = tonumber(due)\n",
        "",
    ),
    _lua(
        "E3",
        "a phantom on change_delay",
        "change_delay",
        "if not redis.call('ZSCORE', QUEUE, id) then return applied(3) end\n",
        "",
        original=True,
    ),
    _lua(
        "F4",
        "one malformed event loses the batch",
        "lib/records",
        "if not stop or stop > 512 then return nil end",
        "if not stop then error('bad record') end",
        original=True,
    ),
    _lua(
        "F4",
        "a claim shows all of a record",
        "claim",
        "string.sub(bytes_of or '', 1, LIMITS.UNREADABLE_SHOWN_BYTES)",
        "bytes_of or ''",
    ),
    _lua(
        "F4",
        "a list shows all of a record",
        "dead_letters",
        "record = string.sub(record, 1, LIMITS.UNREADABLE_SHOWN_BYTES)",
        "record = record .. ''",
    ),
    _lua(
        "E5",
        "a second burial overwrites the first",
        "lib/letters",
        "  if before then\n",
        "  if false then\n",
    ),
    _lua(
        "E5",
        "an error is forgotten when the event is buried",
        "lib/letters",
        "local failure = state and state.error or ''",
        "local failure = ''",
    ),
    _lua(
        "E5",
        "a letter is named by its id alone",
        "lib/letters",
        "if buried ~= '' and found ~= tonumber(buried) then",
        "if false then",
    ),
    _lua(
        "E5",
        "a silent delivery hides behind an error",
        "lib/records",
        "(state.failed or 0) < state.number",
        "not state.error",
    ),
    _lua(
        "F4",
        "the refuser alone is asked again",
        "lib/refusals",
        "if rounds < LIMITS.REFUSAL_ROUNDS and number % members > 0 then return 0 end",
        "if members < 1 then return 0 end",
    ),
    _lua(
        "F4",
        "joins are not counted",
        "join",
        "  redis.call('HSET', META, 'joins', int(joins() + 1))\n",
        "",
    ),
    _lua(
        "F4",
        "refusals are never the last",
        "release",
        "at - state.refusals.since >= tonumber(ARGV[FIRST + 5])",
        "false",
    ),
    _lua(
        "F6",
        "channels without the epoch",
        "lib/ring",
        "ARGV[2] .. epoch .. ':n:' .. arm",
        "ARGV[2] .. 'n:' .. arm",
    ),
    _lua(
        "F7",
        "any schema will do",
        "lib/namespace",
        "elseif meta[1] ~= 'LIMITS.SCHEMA' and not string.find(meta[1], '^LIMITS.SCHEMA%.') then",
        "elseif false then",
    ),
    # --- the client's side
    _node(
        "T6",
        "take naive times for UTC",
        "_validation",
        "datetime.__sub__(at, EPOCH) if aware else None",
        "datetime.__sub__(at if aware else at.replace(tzinfo=UTC), EPOCH)",
    ),
    _node("P6", "any size will do", "posts", "if len(data) > max_bytes:", "if len(data) < 0:"),
    _node(
        "D7",
        "come three seconds late",
        "node/store_clock",
        "None if offset_us is None else store_us - offset_us",
        "None if offset_us is None else store_us - offset_us + 3_000_000",
    ),
    _node(
        "N2",
        "forget what is unfinished",
        "node/consumers",
        "registry.max_events - len(self.unfinished) - len(self._left_over) - num_coming + self._num_ending",
        "registry.max_events",
    ),
    _node(
        "N5",
        "take events without anybody to take them",
        "node/consumers",
        "free = min(free, len(registry.waiting) - num_coming)",
        "free = min(free, 8)",
    ),
    _node(
        "W3",
        "keep the latest of two notifications",
        "node/fetch_schedule",
        "else min(self._notified_us, due_us)",
        "else max(self._notified_us, due_us)",
    ),
    _node(
        "W3",
        "keep the last of two notifications",
        "node/fetch_schedule",
        "else min(self._notified_us, due_us)",
        "else due_us",
    ),
    _node("W1", "fallback claims are kept quiet", "node/fetcher", "pulse=claim.pulse,", "pulse=False,"),
    _node(
        "F1",
        "repeat what is not safe to repeat",
        "node/batcher",
        "(not lost or self._operation in REPEATABLE)",
        "True",
    ),
    _node(
        "F1",
        "repeat one call that is not safe to repeat",
        "node/retry",
        "            if not error.safe_to_repeat or ",
        "            if ",
    ),
    _node(
        "F3",
        "a raising handler stops the node",
        "node/consumers",
        "        self._owner.handler_failed(event, error, Ending.RAISED)\n        if ends_the_program(error):\n",
        "        if error:\n",
    ),
    _node(
        "F8",
        "join in any loop",
        "node/membership",
        "                if there.lives and self.node is not None and self.node.busy:",
        "                if False:",
    ),
    _lua(
        "T1",
        "tell an interval",
        "lib/ring",
        "string.format('1 %d %d %d', head, at, seq)",
        "string.format('1 %d %d %d', head - at, at, seq)",
    ),
    _node("P2", "any id will do", "_validation", "    if not 1 <= size <= ID_MAX_BYTES:", "    if size < 0:"),
    _node("E6", "extending counts as a failure", "protocol/outcomes", "        ExtendOutcome.EXTENDED,\n", ""),
    _node(
        "N4",
        "give up after a failure",
        "node/fetch_schedule",
        "self._retry_at_us = now_us + self._backoff.next_us()",
        "self._retry_at_us = now_us + 3_600_000_000",
        original=True,
    ),
    _machine(
        "F2",
        "a lost claim loses what requires a confirm",
        "        if event.requires_confirm:\n            entry.nonce",
        "        if False:\n            entry.nonce",
    ),
    _node(
        "N1",
        "`ready` is never emitted",
        "node/fetcher",
        "        self._acks.batcher.hand_over(self._signal.set)\n        if self.joined:\n            self._owner.ready()\n",
        "        self._acks.batcher.hand_over(self._signal.set)\n",
        original=True,
    ),
    _machine(
        "E1",
        "a late confirm is refused",
        "        if not entry.holds(receipt):\n",
        "        if not entry.holds(receipt) or entry.next_us <= self._at_us:\n",
        original=True,
    ),
    _node(
        "T5",
        "endless delays are taken",
        "_validation",
        'if not math.isfinite(number):\n        raise InvalidArgument(argument, f"must be finite, not {safe_repr(value)}")\n    num',
        'if number != number:\n        raise InvalidArgument(argument, f"must be finite, not {safe_repr(value)}")\n    num',
        original=True,
    ),
)
