"""Chance that can be replayed: each draw depends on the seed, on what it is for, and on how many were drawn for that.

Nothing is drawn from one stream shared by all. So a draw more in one place changes nothing in another: a fault taken
out of a run leaves all the others where they were, and another Python version draws the same.
Only integers and exactly rounded floating-point operations are used, so another machine draws the same as well.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from hashlib import blake2b
from math import frexp
from typing import Final, TypeVar

T = TypeVar("T")

Key = str | int

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the step of splitmix64, which visits every 64-bit number before any again."""
_LN_2: Final = 0.6931471805599453
_LN_TERMS: Final = 12


def derive(seed: int, *keys: Key) -> int:
    """64 bits that belong to these keys, the same on every machine."""
    # Each with its type and length, so that ("ab", "c"), ("a", "bc") and ("a", "b", "c") differ, and 1 from "1".
    text = "".join(f"{type(key).__name__[0]}{len(str(key))}:{key}" for key in (seed, *keys))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def draw(key: int, counter: int) -> int:
    """The `counter`-th 64 bits of a key (the finisher of splitmix64)."""
    z = (key + counter * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Rng:
    """The draws for one purpose of one entity: ``Rng(seed, "n1", "latency")``.

    Equal keys draw equal numbers, so each purpose needs keys of its own.

    Attributes:
        drawn: how many draws were made.
    """

    __slots__ = ("_key", "_keys", "_seed", "drawn")

    def __init__(self, seed: int, *keys: Key) -> None:
        self._seed = seed
        self._keys = keys
        self._key = derive(seed, *keys)
        self.drawn = 0

    def of(self, *keys: Key) -> Rng:
        """The draws of a part of it, which depend on no draw made here: ``Rng(seed).of("n1").of("latency")``."""
        return Rng(self._seed, *self._keys, *keys)

    def at(self, counter: int) -> int:
        """The 64 bits that belong to a number of the caller's own; counts for nothing."""
        return draw(self._key, counter)

    def bits(self) -> int:
        """The next 64 bits."""
        self.drawn += 1
        return draw(self._key, self.drawn)

    def below(self, limit: int) -> int:
        """An integer from 0 up to and without `limit`."""
        if limit <= 0:
            raise ValueError(f"there is no number from 0 to below {limit}")
        if limit > _MASK:
            return (self.bits() << 64 | self.bits()) % limit
        # Its bias is below limit / 2**64: nobody will ever see it.
        self.drawn += 1
        return draw(self._key, self.drawn) % limit

    def between(self, least: int, most: int) -> int:
        """An integer from `least` to `most`, both included."""
        return least + self.below(most - least + 1)

    def fraction(self) -> float:
        """A number from 0 up to and without 1."""
        return (self.bits() >> 11) * 2.0**-53

    def happens(self, rate: float) -> bool:
        """True with this probability: never at 0, always at 1."""
        return self.fraction() < rate

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def exponential(self, mean: int) -> int:
        """A duration in the unit of `mean`: the time until something happens that happens once in `mean` on average."""
        return round(-_ln(1.0 - self.fraction()) * mean)

    def token(self, num_bytes: int) -> str:
        """Random bytes, in hexadecimal."""
        words = -(-num_bytes // 8)
        return b"".join([self.bits().to_bytes(8) for _ in range(words)])[:num_bytes].hex()


def _ln(number: float) -> float:
    """The natural logarithm to some 15 digits. That of the C library may differ in the last one between machines."""
    mantissa, exponent = frexp(number)
    # A mantissa between 0.5 and 1 gives a ratio between -1/3 and 0, so that twelve terms of the series do.
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    total, power = 0.0, ratio
    for term in range(_LN_TERMS):
        total += power / (2 * term + 1)
        power *= square
    return 2.0 * total + exponent * _LN_2
