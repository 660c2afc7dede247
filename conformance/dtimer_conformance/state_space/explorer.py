"""All states of a small world, those with the fewest moves first, so that a violation is found by a shortest path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from dtimer.semantics import Machine, StoreClock
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.linearize import Violation
from dtimer_conformance.state_space.canonical import canonical
from dtimer_conformance.state_space.moves import Alphabet
from dtimer_conformance.state_space.state import Recorded, State

MakeMachine = Callable[[str], Machine]
MakeClock = Callable[[], StoreClock]


@frozen
class Found:
    """A violation, and the shortest path to it.

    Attributes:
        moves: by name; :func:`play` takes them again.
    """

    alphabet: str
    moves: tuple[str, ...]
    violation: Violation

    def __str__(self) -> str:
        """For a test to replay it."""
        path = "".join(f"\n    {move!r}," for move in self.moves)
        return f"{self.violation.rule}: {self.violation.problem}\nplay(ALPHABETS[{self.alphabet!r}], [{path}\n])"


@frozen
class Explored:
    """What was gone through.

    Attributes:
        states: how many are first reached by 0 moves, by one, by two, and so on.
        transitions: moves that were made.
        closed: more moves lead to nothing new.
        found: the first violation; the rest was not explored then.
        paths: one to each state, if they were asked for.
    """

    alphabet: str
    states: tuple[int, ...]
    transitions: int
    closed: bool
    found: Found | None
    paths: tuple[tuple[str, ...], ...] = ()

    @property
    def depth(self) -> int:
        return len(self.states) - 1


def explore(
    alphabet: Alphabet,
    depth: int,
    machine: MakeMachine = Machine,
    clock: MakeClock = StoreClock,
    *,
    progress: Callable[[int, int, int], None] = lambda depth, states, transitions: None,
    keep_paths: bool = False,
) -> Explored:
    """Go through all states that paths of this length lead to, and judge each move.

    Args:
        machine, clock: what is explored, given an epoch.
        progress: told of each depth that is done: its states, and all transitions so far.
    """
    try:
        first = State.begun(alphabet, machine, clock)
    except RuleBroken as broken:
        return Explored(alphabet.name, (1,), 0, False, _found(alphabet, (), broken))
    seen = {hash(canonical(first, alphabet))}
    parents = [(-1, -1)]
    layer = [(first, 0)]
    states = [1]
    transitions = 0
    found: Found | None = None
    while layer and found is None and len(states) <= depth:
        last = len(states) == depth
        following: list[tuple[State, int]] = []
        number = 0
        for state, index in layer:
            for which, move in enumerate(alphabet.moves):
                after = state.copy()
                try:
                    if not after.do(move.part):
                        continue
                except RuleBroken as broken:
                    found = _found(alphabet, (*_path(alphabet, parents, index), move.name), broken)
                    break
                transitions += 1
                form = hash(canonical(after, alphabet))
                if form in seen:
                    continue
                seen.add(form)
                number += 1
                if not last or keep_paths:
                    parents.append((index, which))
                if not last:
                    following.append((after, len(parents) - 1))
            if found is not None:
                break
        if number:
            states.append(number)
            progress(len(states) - 1, number, transitions)
        if not following:
            break
        layer = following
    closed = found is None and len(states) <= depth
    paths = tuple(_path(alphabet, parents, index) for index in range(len(parents))) if keep_paths else ()
    return Explored(alphabet.name, tuple(states), transitions, closed, found, paths)


def play(
    alphabet: Alphabet,
    moves: Sequence[str],
    machine: MakeMachine = Machine,
    clock: MakeClock = StoreClock,
) -> Violation | None:
    """Go a path again; None if all of it is as the rules say. A move that cannot be made is left out."""
    try:
        walked(alphabet, moves, machine, clock)
    except RuleBroken as broken:
        return _violation(broken, moves)
    return None


def walked(
    alphabet: Alphabet, moves: Sequence[str], machine: MakeMachine = Machine, clock: MakeClock = StoreClock
) -> State:
    """The state at the end of a path, with what was done, for a backend to be taken through.

    Raises:
        RuleBroken: something on the way is wrong.
    """
    state = State.begun(alphabet, machine, clock, recorded=True)
    for name in moves:
        state.do(alphabet.move(name).part)
    return state


def sample(alphabet: Alphabet, number: int) -> list[Recorded]:
    """Some of the longest paths of the short version, at most `number`, spread evenly, for backends to go, too.

    None ends while the host's clock shows a time at which a store refuses everything.
    """
    explored = explore(alphabet, alphabet.short_depth, keep_paths=True)
    longest = explored.paths[-explored.states[-1] :]
    ends = (walked(alphabet, path) for path in longest[:: max(len(longest) // number, 1)])
    return [end.recorded for end in ends if end.recorded is not None and end.clock.accepts(end.host_us)][:number]


def _path(alphabet: Alphabet, parents: list[tuple[int, int]], index: int) -> tuple[str, ...]:
    names: list[str] = []
    while index > 0:
        index, which = parents[index]
        names.append(alphabet.moves[which].name)
    return tuple(reversed(names))


def _found(alphabet: Alphabet, moves: tuple[str, ...], broken: RuleBroken) -> Found:
    return Found(alphabet.name, moves, _violation(broken, moves))


def _violation(broken: RuleBroken, moves: Sequence[str]) -> Violation:
    return Violation(broken.rule or "", broken.problem, tuple(moves))
