"""What all clients of one scenario were asked and answered, and what was wrong with an answer as such."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from attrs import define, field, frozen

from dtimer.errors import BackendError, WrongProcessOrLoop
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.explain import brief
from dtimer_conformance.history import Record
from dtimer_conformance.reply_types import problems_of

PROBLEMS_SHOWN_MAX: Final = 3


@frozen
class Lost:
    """An operation that was sent and whose reply never came: it may have been applied (rule F1)."""

    operation: Operation[object]
    sent: int


@define
class Recorder:
    """Of all clients of one namespace.

    Attributes:
        history: operations with their replies, in the order in which the replies came.
        lost: operations without one.
        complaint: the first answer that was none. A node goes on after it, so it is kept here.
        replayable: the machine can follow, since nothing was written past the protocol.
    """

    history: list[Record] = field(factory=list)
    lost: list[Lost] = field(factory=list)
    complaint: RuleBroken | None = None
    replayable: bool = True
    _moment: int = 0

    def moment(self) -> int:
        """Where we are in the order of all sendings and arrivals."""
        self._moment += 1
        return self._moment

    async def ask(
        self, operation: Operation[ReplyT_co], call: Callable[[], Awaitable[Applied[ReplyT_co]]]
    ) -> Applied[ReplyT_co]:
        """Make a call, note it with its reply, and judge both as far as that needs no rule of scheduling.

        Raises:
            BackendError: as the backend did.
            Broken: the reply or the error is none.
        """
        asked = cast("Operation[object]", operation)
        sent = self.moment()
        try:
            reply = await call()
        except BackendError as error:
            if error.known is not BackendError.known:
                self.lost.append(Lost(asked, sent))
            raise self._checked(operation, error) from error
        except WrongProcessOrLoop:
            # It was not sent (rule F8).
            raise
        except Exception as error:
            what = f"{operation.method} raised {error!r}, which is no BackendError"
            raise self._complain(RuleBroken(f"{what}\n  asked for {brief(operation)}", "F1")) from error
        except BaseException:
            self.lost.append(Lost(asked, sent))
            raise
        problems = list(problems_of(operation, reply))
        if problems:
            shown = "\n  ".join(problems[:PROBLEMS_SHOWN_MAX])
            what = f"the reply of {operation.method} is not what the protocol says\n  {shown}"
            raise self._complain(RuleBroken(f"{what}\n  asked for {brief(operation)}"))
        self.history.append(Record(asked, cast("Applied[object]", reply), sent, self.moment()))
        return reply

    def _checked(self, operation: Operation[Any], error: BackendError) -> Exception:
        if error.operation == operation.method:
            return error
        what = f"{operation.method} raised an error that names another operation: {error!r}"
        return self._complain(RuleBroken(what, "F1"))

    def _complain(self, broken: RuleBroken) -> RuleBroken:
        if self.complaint is None:
            self.complaint = broken
        return broken
