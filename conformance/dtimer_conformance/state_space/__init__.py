"""Small worlds, all of them: every state that a few moves of two nodes, with two events, can lead to.

The machine is pure, so its states can be enumerated: :func:`explore` takes it through all programs of an alphabet of
moves, merges states that go on alike, and judges each answer and each state by the rules. What breaks one is found
by a shortest path, which :func:`play` goes again. :func:`sample` gives paths that any backend can be taken through.
"""

from dtimer_conformance.state_space.alphabets import ALPHABETS
from dtimer_conformance.state_space.explorer import Explored, Found, explore, play, sample, walked
from dtimer_conformance.state_space.moves import Alphabet, Move

__all__ = ["ALPHABETS", "Alphabet", "Explored", "Found", "Move", "explore", "play", "sample", "walked"]
