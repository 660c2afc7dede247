"""Dead letters: what was to be kept and ended without confirm or cancel (rule E5)."""

from __future__ import annotations

from itertools import islice

from attrs import define, evolve, field

from dtimer.limits import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    UNREADABLE_SHOWN_BYTES,
)
from dtimer.protocol.values import DeadLetter, DeadLetterCursor, DeadLetterPage, LetterName


@define
class DeadLetters:
    """Capped in number, of which the oldest goes, and in age, past which a letter does not exist for any operation."""

    dropped: int = 0
    """How many went because of the cap on their number."""
    _letters: dict[LetterName, DeadLetter] = field(factory=dict)
    """In the order of their burials."""
    _last: dict[str, DeadLetter] = field(factory=dict)
    """The letter of each id's last burial, as long as it is there."""

    def copy(self) -> DeadLetters:
        return DeadLetters(self.dropped, self._letters.copy(), self._last.copy())

    def bury(self, letter: DeadLetter, at_us: int) -> None:
        for old in tuple(islice(self._letters.values(), CLAIM_EXTRA_ENTRIES)):
            if not _exists(old, at_us):
                self.remove(old)
        self._letters[letter.name] = self._last[letter.id] = letter
        if len(self._letters) > DEAD_LETTERS_MAX:
            oldest = next(iter(self._letters.values()))
            self.dropped += _exists(oldest, at_us)
            self.remove(oldest)

    def find(self, name: LetterName, at_us: int) -> DeadLetter | None:
        letter = self._last.get(name.id) if name.buried_us is None else self._letters.get(name)
        return letter if letter is not None and _exists(letter, at_us) else None

    def remove(self, letter: DeadLetter) -> None:
        del self._letters[letter.name]
        if self._last.get(letter.id) is letter:
            del self._last[letter.id]

    def count(self, at_us: int) -> int:
        return sum(_exists(letter, at_us) for letter in self._letters.values())

    def moved(self, by_us: int, at_us: int) -> int:
        """Make all their times earlier; how many there are. What does not exist any more goes."""
        letters = [letter for letter in self._letters.values() if _exists(letter, at_us)]
        earlier = {letter.name: _earlier(letter, by_us) for letter in letters}
        self._last = {id: earlier[last.name] for id, last in self._last.items() if last.name in earlier}
        self._letters = {letter.name: letter for letter in earlier.values()}
        return len(letters)

    def page(self, cursor: DeadLetterCursor | None, limit: int, at_us: int) -> DeadLetterPage:
        """The oldest first."""
        after = (-1, "") if cursor is None else (cursor.after_us, cursor.after_id)
        rest = [
            letter
            for letter in self._letters.values()
            if _exists(letter, at_us) and (letter.buried_us, letter.id) > after
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


def _exists(letter: DeadLetter, at_us: int) -> bool:
    return letter.buried_us > at_us - DEAD_LETTER_AGE_US


def _earlier(letter: DeadLetter, by_us: int) -> DeadLetter:
    error = letter.last_error
    return evolve(
        letter,
        buried_us=letter.buried_us - by_us,
        due_us=max(letter.due_us - by_us, 0),
        last_error=None if error is None else evolve(error, at_us=max(error.at_us - by_us, 0)),
    )
