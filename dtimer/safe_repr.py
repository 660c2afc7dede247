"""Values and exceptions in messages: short, and without an error of their own.

A message is written when something has gone wrong already.
Python refuses to write an integer of more than 4,300 digits, a class may have a `__repr__` that raises,
and the text of a large payload would drown what is said about it.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import Repr
from typing import Final

from typing_extensions import override

SHOWN_MAX: Final = 200
"""Characters of one value: an id or a URL fits, a document does not."""
_INT_MAX_BITS: Final = 512


class _Short(Repr):
    """Long containers are cut by what they hold, so that the whole text is not made first."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN_MAX

    def repr_int(self, x: int, level: int) -> str:
        size = x.bit_length()
        return repr(x) if size <= _INT_MAX_BITS else f"<an int of {size} bits>"

    @override
    def repr_instance(self, x: object, level: int) -> str:
        # Subclasses of int come here.
        return self.repr_int(int(x), level) if type(x).__repr__ is int.__repr__ and isinstance(x, int) else repr(x)


_SHORT: Final = _Short()


def printable(text: str) -> str:
    """Text from elsewhere, a server for one, with its control characters escaped: a terminal would obey them."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def safe_repr(value: object) -> str:
    """The `repr` of a value for a message, in one line, cut to ``SHOWN_MAX`` characters."""
    return _cut(printable(_text(_SHORT.repr, value, SHOWN_MAX)), SHOWN_MAX)


def safe_str(error: BaseException) -> str:
    """The `str` of an exception for a message, likewise."""
    return _cut(printable(text_of(error, SHOWN_MAX)), SHOWN_MAX)


def text_of(error: BaseException, most: int) -> str:
    """The `str` of an exception as it is, of at most `most` characters."""
    return _text(str, error, most)


def name_of(kind: type, *, whole: bool = False) -> str:
    """The name of a class, without asking its metaclass or its module.

    Args:
        whole: with its module in front, unless it is built in.
    """
    name = str(type.__getattribute__(kind, "__qualname__"))
    if not whole:
        return name
    module: object = type.__getattribute__(kind, "__module__")
    return name if type(module) is not str or module == "builtins" else f"{module}.{name}"


def _text(write: Callable[[object], str], value: object, most: int) -> str:
    try:
        # A subclass of str would be asked for its length and its parts.
        text = str.__str__(write(value))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # A foreign class may raise anything; its name has to do.
        text = f"<{name_of(type(value))} that cannot be shown>"
    return _cut(text, most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
