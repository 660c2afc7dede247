"""What means the same in two calls has one name, one default, one type and one way to be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from itertools import combinations
from typing import Any, Final

import pytest

from dtimer import DTimer, Post, RedisBackend, SimBackend
from dtimer.backends.redis import migrate_partitions, upgrade_namespace
from dtimer.posts import OPTIONS
from dtimer.sim import Host, Simulation, World

MAKERS: Final[Mapping[str, Callable[..., Any]]] = {
    "RedisBackend": RedisBackend,
    "RedisBackend.from_url": RedisBackend.from_url,
    "RedisBackend.embedded": RedisBackend.embedded,
    "SimBackend": SimBackend,
    "Simulation": Simulation,
    "Host.backend": Host.backend,
    "World.backend": World.backend,
    "DTimer": DTimer,
    "migrate_partitions": migrate_partitions,
    "upgrade_namespace": upgrade_namespace,
}
ONE_PER_CALL: Final = {"durability", "repeat_within"}
"""What `post` takes for a call, and so `post_many` takes it, and not each of its posts."""


def parameters(call: Callable[..., Any]) -> dict[str, Parameter]:
    return {name: each for name, each in inspect.signature(call).parameters.items() if name != "self"}


@pytest.mark.parametrize(("one", "other"), [*combinations(MAKERS, 2)])
def test_makers_agree_on_what_means_the_same(one: str, other: str) -> None:
    first, second = parameters(MAKERS[one]), parameters(MAKERS[other])
    common = first.keys() & second.keys()
    if "migrate_partitions" in {one, other}:
        common -= {"partitions"}  # there it is the new number, which has no default

    assert {name: str(first[name]) for name in common} == {name: str(second[name]) for name in common}
    assert {name: first[name].kind for name in common} == {name: second[name].kind for name in common}


def test_all_ways_to_a_redis_backend_differ_in_their_first_argument_only() -> None:
    plain, *others = (
        list(parameters(make).values())[1:] for make in (RedisBackend, RedisBackend.from_url, RedisBackend.embedded)
    )

    assert [*map(str, plain)] == [*map(str, others[0])] == [*map(str, others[1])]


def test_a_post_takes_what_post_takes() -> None:
    """`post` takes the options by their names, and finds their defaults in `OPTIONS`."""
    of_post, of_call = parameters(Post), parameters(DTimer.post)
    assert of_call.pop("options").kind is Parameter.VAR_KEYWORD
    options = {name: Parameter(name, Parameter.KEYWORD_ONLY, default=each.default) for name, each in OPTIONS.items()}
    of_call |= options

    assert [*of_post] == [name for name in of_call if name not in ONE_PER_CALL]
    for name, parameter in of_post.items():
        assert (parameter.default, parameter.kind) == (of_call[name].default, of_call[name].kind), name
