"""An operation is written once; what else needs it is named here when it is missing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from dtimer import SimBackend
from dtimer.backends.redis.partition import CALLS
from dtimer.protocol import operations as op
from dtimer.protocol.backend import OperationMethods
from dtimer.protocol.operations import REPEATS, Operation
from dtimer.protocol.values import After, EventData, NewEvent, Receipt
from dtimer.semantics import Machine

REFERENCE: Final = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "protocol.md").read_text(
    encoding="utf-8"
)
KINDS: Final = [
    kind
    for kind in vars(op).values()
    if isinstance(kind, type) and issubclass(kind, Operation) and hasattr(kind, "method")
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@each_kind
def test_each_operation_has_the_method_of_its_name(kind: type[Operation[Any]]) -> None:
    method = getattr(OperationMethods, kind.method)

    assert (method.__name__, method.__doc__) == (kind.method, kind.__doc__)


@each_kind
def test_the_machine_carries_out_each_operation(kind: type[Operation[Any]]) -> None:
    (_, operation) = inspect.signature(getattr(Machine, f"_{kind.method}")).parameters.values()

    assert operation.annotation == f"op.{kind.__name__}"


def test_redis_carries_out_each_operation() -> None:
    assert set(CALLS) == set(KINDS)


@each_kind
def test_the_reference_shows_each_operation_with_its_arguments(kind: type[Operation[Any]]) -> None:
    shown = re.search(rf"`{kind.method}\(([^)]*)\)`", REFERENCE)

    assert shown is not None
    assert re.findall(r"\w+", shown[1]) == [field.name for field in attrs.fields(kind)]


def test_it_is_known_of_each_operation_whether_it_may_be_repeated() -> None:
    assert set(REPEATS) == {kind.method for kind in KINDS}


def test_an_operation_that_does_not_say_whether_it_may_be_repeated_is_refused() -> None:
    with pytest.raises(AttributeError, match="repeat"):
        type("Forgetful", (Operation,), {"method": "forgetful"})


def test_an_operation_says_what_it_is_about() -> None:
    """For traces, and for what is told of lost calls."""
    new = NewEvent(EventData(id="x", payload=b""), After(0))

    assert list(op.Post([new]).about()) == ["x"]
    assert list(op.Bury(Receipt("y", 1, "n"), "why").about()) == ["y"]
    assert list(op.Inspect().about()) == []


async def test_a_method_makes_the_operation_of_its_arguments() -> None:
    """By position or by name, as for any function; lists become tuples, so that an operation can be kept."""
    asked: list[Operation[Any]] = []

    class Asked(SimBackend):
        async def perform(self, operation: Operation[Any]) -> Any:
            asked.append(operation)
            return await super().perform(operation)

    async with Asked() as backend:
        await backend.cancel(["x"])
        await backend.change_delay("x", delay_us=5)

    assert asked == [op.Cancel(("x",)), op.ChangeDelay("x", 5)]
    with pytest.raises(TypeError):
        await backend.change_delay("x", 5, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
