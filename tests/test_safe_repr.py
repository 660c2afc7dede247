"""A message about a value never fails itself, and never drowns in it."""

from __future__ import annotations

from typing import Any

import pytest

from dtimer.protocol.values import Failure, LastError
from dtimer.safe_repr import SHOWN_MAX, safe_repr, safe_str, text_of


class RustPanic(BaseException):
    """No Exception, as a panic of an extension in Rust is none."""


def raising(error: BaseException) -> object:
    class Unprintable:
        def __repr__(self) -> str:
            raise error

    return Unprintable()


class OddInt(int):
    """Goes the way of its base, and that is refused for a huge one."""


@pytest.mark.parametrize("value", [5, -1.5, "x", b"x", None, [1, "a"], {"a": (1,)}, True, 10**100])
def test_what_is_short_is_shown_as_it_is(value: Any) -> None:
    assert safe_repr(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), OddInt(10**5000), [10**5000], {1: {2: [10**5000]}}],
    ids=["int", "negative", "subclass", "in a list", "deep"],
)
def test_a_huge_integer_is_shown_by_its_size(value: Any) -> None:
    """Python raises a ValueError in place of its repr."""
    assert "<an int of 16610 bits>" in safe_repr(value)


@pytest.mark.parametrize("error", [ValueError("no"), RecursionError(), RustPanic()])
def test_what_cannot_be_shown_is_named(error: BaseException) -> None:
    assert "Unprintable" in safe_repr(raising(error))
    assert "Unprintable" in safe_repr([raising(error)]) or "list" in safe_repr([raising(error)])


def test_an_interrupt_is_no_failure_of_a_value() -> None:
    with pytest.raises(KeyboardInterrupt):
        safe_repr(raising(KeyboardInterrupt()))


@pytest.mark.parametrize("value", ["x" * 10**6, b"x" * 10**6, list(range(10**6)), {"k": "v" * 10**6}, {"x" * 10**6: 1}])
def test_what_is_long_is_cut(value: Any) -> None:
    assert len(safe_repr(value)) <= SHOWN_MAX


def test_an_exception_is_told_by_its_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert safe_str(ValueError("no room")) == "no room"
    assert "Mute" in safe_str(Mute())
    assert len(safe_str(ValueError("x" * 10**6))) <= SHOWN_MAX


TITLE = "\x1b]0;owned\x07\x1b[2J\nand a line"


class Obeyed:
    def __repr__(self) -> str:
        return TITLE


@pytest.mark.parametrize(
    "text", [safe_repr(Obeyed()), safe_repr([Obeyed()]), safe_str(ValueError(TITLE)), safe_repr(TITLE)]
)
def test_no_message_has_control_characters(text: str) -> None:
    """A terminal would obey them, and a log would have a line that nothing wrote."""
    assert text.isprintable()
    assert "owned" in text


def test_the_text_that_is_kept_is_the_error_s_own() -> None:
    """A dead letter has it whole, with its lines; in a message it is one line."""
    assert text_of(ValueError(TITLE), 1_000) == TITLE
    assert str(LastError(delivery_number=1, node="n", at_us=1, failure=Failure("ValueError", TITLE))).isprintable()


def test_what_is_escaped_is_cut_as_well() -> None:
    assert len(safe_str(ValueError("\x1b" * SHOWN_MAX))) == SHOWN_MAX
