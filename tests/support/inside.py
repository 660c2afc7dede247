"""The parts of a timer that tests look into, or disturb."""

from __future__ import annotations

from typing import Any

from dtimer import DTimer
from dtimer.node.dispatcher import Dispatcher
from dtimer.node.node import Node


def node_of(timer: DTimer[Any]) -> Node[Any]:
    """What the timer is, joined or not, or else what it will be when it joins in the running loop."""
    if timer._membership.node is not None:
        return timer._membership.node
    with timer._membership.node_here() as node:
        return node


def dispatcher_of(timer: DTimer[Any]) -> Dispatcher[Any]:
    """That of the node."""
    return node_of(timer).dispatcher
