"""Dead letters: what was to be kept and ended without confirm or cancel (rule E5)."""

from __future__ import annotations

from itertools import islice, takewhile

from attrs import define, evolve, field

from dtimer.limits import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    UNREADABLE_SHOWN_BYTES,
)
from dtimer.values import DeadLetter, DeadLetterCursor, DeadLetterPage


@define
class DeadLetters:
    """Capped in number, of which the oldest goes, and in age, past which a letter does not exist for any operation."""

    dropped: int = 0
    """How many went because of the cap on their number, or because the same id was buried again."""
    _letters: dict[str, DeadLetter] = field(factory=dict)
    """In the order of their burials, which is that of time: the store's never goes back."""

    def copy(self) -> DeadLetters:
        return DeadLetters(self.dropped, self._letters.copy())

    def bury(self, letter: DeadLetter) -> None:
        for old in tuple(islice(self._letters.values(), CLAIM_EXTRA_ENTRIES)):
            if not _exists(old, letter.buried_us):
                del self._letters[old.id]
        self._drop(letter.id, letter.buried_us)
        self._letters[letter.id] = letter
        if len(self._letters) > DEAD_LETTERS_MAX:
            self._drop(self._oldest().id, letter.buried_us)

    def _drop(self, id: str, at_us: int) -> None:
        self.dropped += self.find(id, at_us) is not None
        self._letters.pop(id, None)

    def find(self, id: str, at_us: int) -> DeadLetter | None:
        letter = self._letters.get(id)
        return letter if letter is not None and _exists(letter, at_us) else None

    def remove(self, id: str) -> None:
        del self._letters[id]

    def count(self, at_us: int) -> int:
        return sum(_exists(letter, at_us) for letter in self._letters.values())

    def page(self, cursor: DeadLetterCursor | None, limit: int, at_us: int) -> DeadLetterPage:
        """The oldest first; equal times go by id."""
        after = (-1, "") if cursor is None else (cursor.after_us, cursor.after_id)
        rest = [
            letter for letter in self._in_order() if _exists(letter, at_us) and (letter.buried_us, letter.id) > after
        ]
        items: list[DeadLetter] = []
        num_bytes = 0
        for whole in rest[:limit]:
            letter = evolve(whole, raw=whole.raw[:UNREADABLE_SHOWN_BYTES])
            size = len(letter.raw) if letter.event is None else letter.event.num_bytes
            if items and num_bytes + size > BATCH_MAX_BYTES:
                break
            num_bytes += size
            items.append(letter)
        more = len(rest) > len(items)
        return DeadLetterPage(tuple(items), DeadLetterCursor(items[-1].buried_us, items[-1].id) if more else None)

    def _oldest(self) -> DeadLetter:
        first = next(iter(self._letters.values()))
        together = takewhile(lambda letter: letter.buried_us == first.buried_us, self._letters.values())
        return min(together, key=lambda letter: letter.id)

    def _in_order(self) -> list[DeadLetter]:
        return sorted(self._letters.values(), key=lambda letter: (letter.buried_us, letter.id))


def _exists(letter: DeadLetter, at_us: int) -> bool:
    return letter.buried_us > at_us - DEAD_LETTER_AGE_US
