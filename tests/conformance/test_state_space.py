"""The small worlds: nothing in them breaks a rule, and what would is found by a shortest path."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from dtimer.protocol import operations as op
from dtimer_conformance.state_space import ALPHABETS, Alphabet, explore, play
from dtimer_conformance.state_space.canonical import canonical
from dtimer_conformance.state_space.command import main
from dtimer_conformance.state_space.state import State
from support.planted_states import PLANTED, Planted

pytestmark = pytest.mark.once


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=lambda alphabet: alphabet.name)
def test_no_short_path_breaks_a_rule(alphabet: Alphabet) -> None:
    """``make worlds`` goes further. Each move is made somewhere, or it would show nothing."""
    explored = explore(alphabet, alphabet.short_depth, keep_paths=True)

    assert explored.found is None, f"{explored.found}"
    assert {move for path in explored.paths for move in path} >= {move.name for move in alphabet.moves}


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=lambda alphabet: alphabet.name)
def test_states_with_one_form_go_on_alike(alphabet: Alphabet) -> None:
    """So it loses nothing to explore one of them: each move leads both to one form again, but for microseconds."""
    first = State.begun(alphabet)
    known = {canonical(first, alphabet): first}
    layer = [first]
    merged = 0
    for _ in range(3):
        following: list[State] = []
        for state, move in product(layer, alphabet.moves):
            after = state.copy()
            if not after.do(move.part):
                continue
            form = canonical(after, alphabet)
            if form in known:
                merged += 1
                assert leads_to(after, alphabet) == leads_to(known[form], alphabet)
            else:
                known[form] = after
                following.append(after)
        layer = following

    assert merged > 20


def leads_to(state: State, alphabet: Alphabet) -> list[object]:
    """The forms of the states that come next, without the order within a millisecond."""
    forms: list[object] = []
    for move in alphabet.moves:
        after = state.copy()
        parts, rest = canonical(after, alphabet) if after.do(move.part) else ((), ())
        forms.append((move.name, [part[0] if isinstance(part, tuple) else part for part in parts], rest))
    return forms


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.alphabet}-{planted.mutant.name}")
def test_a_planted_bug_is_found_by_a_shortest_path(planted: Planted) -> None:
    """And the path replays: it breaks a rule with the bug, and none without."""
    alphabet = ALPHABETS[planted.alphabet]

    found = explore(alphabet, planted.moves, **planted.parts()).found

    assert found is not None
    assert len(found.moves) == planted.moves, f"{found}"
    assert play(alphabet, found.moves, **planted.parts()) == found.violation
    assert play(alphabet, found.moves) is None


@pytest.mark.parametrize("kind", [op.Post, op.Cancel])
def test_a_client_that_repeats_what_is_not_safe_undoes_the_work_of_another(
    kind: type[op.Operation[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F1: which calls are repeated stands with each operation."""
    monkeypatch.setattr(kind, "repeat", op.SAFE)

    found = explore(ALPHABETS["lost calls"], 3).found

    assert found is not None
    assert found.violation.rule == "F1"
    assert "undone" in found.violation.problem


def test_the_command_prints_counts_and_a_path_to_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ring", "--depth", "2"]) == 0

    said = capsys.readouterr().out
    assert "  2 moves:        39 new states,        106 transitions" in said
    assert "1 worlds: 48 states, 106 transitions" in said


def test_a_path_is_printed_as_a_call_that_replays_it() -> None:
    planted = PLANTED[0]
    found = explore(ALPHABETS[planted.alphabet], planted.moves, **planted.parts()).found

    assert str(found) == (
        "D6: it took {'x'}, and may take []\n"
        "play(ALPHABETS['retries'], [\n"
        "    'post x, one retry',\n"
        "    'b claims one',\n"
        "])"
    )
