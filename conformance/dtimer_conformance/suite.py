"""The conformance suite as a test class: derive from it, write one method, and let pytest collect it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, TypeVar, cast

import pytest

from dtimer.protocol.backend import TimerBackend
from dtimer_conformance.features import Feature
from dtimer_conformance.runner import ScenarioRunner, Status
from dtimer_conformance.scenario import Scenario
from dtimer_conformance.scenarios import SCENARIOS

TestT = TypeVar("TestT", bound=Callable[..., None])

_MARK: Final = "__dtimer_expected_failure__"
_GUARD: Final = "test_no_standard_test_is_dropped"


def expected_failure(*, reason: str) -> Callable[[TestT], TestT]:
    """Say that a standard test fails on this backend, and why; it counts as a failure when it does not any more.

    The only way to override one. The body is that of the standard test, whatever is written there::

        @expected_failure(reason="our store keeps times in milliseconds")
        def test_t4_equal_delays_come_in_the_order_posted(self) -> None: ...

    Raises:
        ValueError: there is no reason, or no standard test of this name.
    """
    if not reason.strip():
        raise ValueError("an expected failure has a reason")

    def mark(test: TestT) -> TestT:
        standard = vars(BackendSuite).get(test.__name__)
        if test.__name__ not in SCENARIOS or standard is None:
            raise ValueError(f"there is no standard test {test.__name__}")

        @functools.wraps(standard)
        def run(self: BackendSuite) -> None:
            __tracebackhide__ = True
            standard(self)

        marked = pytest.mark.xfail(reason=reason, strict=True)(run)
        setattr(marked, _MARK, reason)
        return cast("TestT", marked)

    return mark


class BackendSuite:
    """Every promise of dtimer, as a test of a backend.

    Derive a class whose name begins with ``Test``, say in `features` what the backend can do beyond the protocol, and
    write :meth:`backend`. The tests are plain functions that run their own event loop: no plugin is needed.

    A standard test may be overridden only with :func:`expected_failure`.
    """

    features: AbstractSet[Feature] = frozenset()
    runner: ClassVar[ScenarioRunner]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.runner = ScenarioRunner()
        if _GUARD in vars(cls):
            raise TypeError(f"{cls.__name__} must not override {_GUARD}")

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        """A client of a namespace on the store under test.

        Called again for the same namespace, another client of it, as another process would have one.
        Each test has a namespace of its own, of which nothing is known before.

        Args:
            clock: what the backend is to take its time from: microseconds since 1970.
                None, as it always is without :attr:`Feature.CLOCK`, leaves the time to the store.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a method `backend`: that is the one to write")

    def test_no_standard_test_is_dropped(self) -> None:
        """A suite that silently lacks a test would prove what it did not try."""
        wrong = [name for name in SCENARIOS if not _is_kept(type(self), name)]
        if wrong:
            pytest.fail(
                f"{type(self).__name__} overrides or drops standard tests without @expected_failure: "
                + ", ".join(wrong),
                pytrace=False,
            )


def _is_kept(suite: type[BackendSuite], name: str) -> bool:
    found = inspect.getattr_static(suite, name, None)
    if found is vars(BackendSuite)[name]:
        return True
    return inspect.isfunction(found) and bool(getattr(found, _MARK, ""))


def _test_of(scenario: Scenario) -> Callable[[BackendSuite], None]:
    def test(self: BackendSuite) -> None:
        __tracebackhide__ = True
        result = self.runner.try_one(scenario, self)
        if result.status is Status.SKIPPED:
            pytest.skip(result.why)
        if result.status is Status.FAILED:
            pytest.fail(str(result.verdict), pytrace=False)

    test.__name__ = scenario.name
    test.__qualname__ = f"{BackendSuite.__name__}.{scenario.name}"
    test.__doc__ = scenario.text
    return test


for _scenario in SCENARIOS.values():
    setattr(BackendSuite, _scenario.name, _test_of(_scenario))
