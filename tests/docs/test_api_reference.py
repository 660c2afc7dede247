"""The API reference leaves nothing out, and shows the defaults that the code has."""

from __future__ import annotations

import argparse
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

import dtimer
from dtimer import BackendError, Counters, DeadEvent, DTimer, Ended, Event, Known, Post, SimBackend, Upcoming, sim
from dtimer import errors as errors_module
from dtimer.cli import make_parser
from dtimer.errors import REPEATABLE
from dtimer.posts import OPTIONS, PostOptions
from dtimer.protocol import outcomes as outcomes_module
from dtimer.protocol.operations import REPEATS
from dtimer.protocol.values import EVENT_FIELDS
from dtimer.sim import Run, SimClock, World, pytest_plugin

REFERENCE: Final = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
NAMED: Final = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", REFERENCE))))
"""Every word that stands in code."""

COMMANDS: Final[dict[str, argparse.ArgumentParser]] = {
    name: command
    for action in make_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
    for name, command in action.choices.items()
}

OUTCOMES: Final = [
    kind for name in dtimer.__all__ if name.endswith("Outcome") for kind in [getattr(outcomes_module, name)]
]


def section(title: str) -> str:
    (found,) = re.findall(rf"^#+ {title}\n(.*?)(?=^#|\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    return str(found)


COMMAND_LINE: Final = section("The command line")


def test_every_public_name_is_there() -> None:
    assert set(dtimer.__all__) <= NAMED


@pytest.mark.parametrize("kind", [DTimer, Event, Ended, Upcoming, DeadEvent, Counters, Post])
def test_every_public_attribute_is_there(kind: type[Any]) -> None:
    attributes = {name for name in dir(kind) if not name.startswith("_")} - {"of", "snapshot"}

    assert attributes <= NAMED


def test_the_simulators_own_methods_are_there() -> None:
    own = {name for name in dir(SimClock) if not name.startswith("_")} | {"close_now"}

    assert {"now", "advance", "autojump"} <= own <= set(dir(SimBackend)) & NAMED


def test_everything_about_simulations_is_there() -> None:
    """But for the types that only the type checker asks for, and those that say what faults are about."""
    types = {"Fault", "NodeFault", "StoreFault", "LinkedBackend", "Rate", "Record", "Observer"}
    verbs = {name for name in dir(World) if not name.startswith("_")}

    assert set(sim.__all__) - types <= NAMED
    assert verbs <= NAMED
    assert {field.name.removeprefix("_") for field in attrs.fields(Run)} | {"timeline"} <= NAMED


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_with_its_arguments_and_options(name: str) -> None:
    """In paragraphs of its own, which begin with it; what several take may be explained with one of them."""
    paragraphs = re.findall(rf"^`dtimer {name}\b.*?(?=^`dtimer |\Z)", COMMAND_LINE, re.MULTILINE | re.DOTALL)
    assert len(paragraphs) == 1, f"docs/reference/api.md, The command line: one paragraph begins with `dtimer {name} …`"
    named = set(re.findall(r"`[^`\n]+`", paragraphs[0]))

    for action in COMMANDS[name]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        word = action.option_strings[0] if action.option_strings else str(action.metavar)
        assert any(re.search(rf"(?<![\w-]){word}(?![\w-])", code) for code in named), (
            f"docs/reference/api.md says nothing of {word} where it tells of dtimer {name}"
        )


def test_what_the_pytest_plugin_gives_is_there() -> None:
    assert {"sim", "sim_clock", "simulation", "dtimer_seed"} <= set(dir(pytest_plugin)) & NAMED
    assert pytest_plugin.MARKER in NAMED


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__)
def test_each_outcome_stands_on_the_side_of_its_truth(kind: type[Enum]) -> None:
    (row,) = re.findall(rf"^\| `{kind.__name__}` \| (.*) \| (.*) \|$", REFERENCE, re.MULTILINE)

    listed = [re.findall(r"`(\w+)`", cell) for cell in row]
    assert listed == [[member.name for member in kind if bool(member) is truth] for truth in (True, False)]


def test_the_signature_of_post_is_that_of_the_code() -> None:
    (shown,) = re.findall(r"^`await post\((.*)\)`$", REFERENCE, re.MULTILINE)
    *parameters, options = _parameters(DTimer.post)
    assert options.kind is inspect.Parameter.VAR_KEYWORD
    parameters += [parameter for parameter in _parameters(Post) if parameter.name in OPTIONS]
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]

    assert shown == str(inspect.Signature(parameters))[1:-1].replace("'", '"')


def _parameters(function: Any) -> list[inspect.Parameter]:
    return [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "self"]


def test_posts_have_the_same_defaults_as_post() -> None:
    """The page says that the fields are the arguments, but for two that are of the whole call."""
    defaults = {field.name: field.default for field in attrs.fields(Post) if field.default is not attrs.NOTHING}

    of_post = {p.name: p.default for p in _parameters(DTimer.post) if p.default is not inspect.Parameter.empty}
    assert (of_post.pop("durability"), of_post.pop("repeat_within")) == (None, None)
    assert defaults == of_post | {name: option.default for name, option in OPTIONS.items()}


def test_each_option_of_a_post_fills_a_field_of_its_event() -> None:
    """One that is added to one of the lists, and not to the others, is found here."""
    assert PostOptions.__annotations__.keys() == OPTIONS.keys()
    assert [option.field for option in OPTIONS.values()] == [field.name for field in EVENT_FIELDS]


def test_the_table_of_the_stores_errors_says_what_the_code_says() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \| .* \|$", section("The store's"), re.MULTILINE))
    kinds = {name: getattr(errors_module, name) for name in dtimer.__all__ if _is_error(name, BackendError)}

    assert set(rows) == set(kinds) - {"BackendError"}
    for name, known in rows.items():
        assert (known == "not applied") is (kinds[name].known is Known.NOT_APPLIED)
    assert "BackendError" in section("The store's")


def test_operations_that_are_not_safe_to_repeat_are_listed() -> None:
    (listed,) = re.findall(r"not for (.*?) \|", section("The store's"))

    # A claim is a node's own.
    unsafe = set(REPEATS) - REPEATABLE - {"claim"}
    assert set(re.findall(r"`(\w+)`", listed)) == unsafe


def _is_error(name: str, base: type[Exception]) -> bool:
    kind = getattr(errors_module, name, None)
    return isinstance(kind, type) and issubclass(kind, base)
