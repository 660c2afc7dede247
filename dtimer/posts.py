"""Checks what a user posts and encodes it, before any I/O: no store ever gets what it would have to refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Generic

from attrs import field
from typing_extensions import override

from dtimer import _validation
from dtimer._validation import Delay, IfExistsName, Retry, Timeout
from dtimer.codecs.codec import Codec, PayloadT, encode_headers
from dtimer.errors import InvalidArgument, PayloadNotEncodable, PayloadTooLarge
from dtimer.frozen import frozen
from dtimer.loop_local import after_fork
from dtimer.protocol.backend import Runtime
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import EventData, NewEvent
from dtimer.safe_repr import safe_repr, safe_str
from dtimer.user_code import ends_the_program, is_outcome

ID_BYTES: Final = 8
"""Of made ids: 2**64 of them, as hex."""
TOKENS_AT_A_TIME: Final = 64


_HOW_TO: Final = "for other types see the guide 'Use your own codec', docs/how-to/use-your-own-codec.md"


class PostedId(str):
    """The id of what was posted.

    Attributes:
        outcome: what the post did (rule P3).
    """

    outcome: PostOutcome

    __slots__ = ("outcome",)

    @classmethod
    def of(cls, id: str, outcome: PostOutcome) -> PostedId:
        posted = cls(id)
        posted.outcome = outcome
        return posted

    @override
    def __repr__(self) -> str:
        outcome = getattr(self, "outcome", None)  # one that `of` did not make has none
        return str.__repr__(self) if outcome is None else f"PostedId({str.__repr__(self)}, {outcome.value})"


@frozen
class Post(Generic[PayloadT]):
    """One item of :meth:`dtimer.DTimer.post_many`; its fields are the arguments of :meth:`dtimer.DTimer.post`."""

    payload: PayloadT
    delay: Delay | None = None
    at: datetime | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)
    max_retries: int = field(default=0, kw_only=True)
    confirm_timeout: Timeout | None = field(default=None, kw_only=True)
    max_run: Timeout | None = field(default=None, kw_only=True)
    retry: Retry | None = field(default=None, kw_only=True)
    expires_after: Delay | None = field(default=None, kw_only=True)
    dead_letter: bool = field(default=False, kw_only=True)
    if_exists: IfExistsName = field(default="replace", kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)


class PostEncoder(Generic[PayloadT]):
    """Checks posts and encodes their payloads."""

    def __init__(self, codec: Codec[PayloadT], payload_max_bytes: int, runtime: Runtime) -> None:
        self._codec = codec
        self._payload_max_bytes = payload_max_bytes
        self._runtime = runtime
        self._tokens: list[str] = []
        after_fork(self, PostEncoder[PayloadT]._forked)

    def new_events(self, posts: Iterable[Post[PayloadT]]) -> list[NewEvent]:
        """As :meth:`new_event`, each of them."""
        new_event = self.new_event
        news: list[NewEvent] = []
        for post in _validation.many(posts, "posts"):
            if not isinstance(post, Post):  # pyright: ignore[reportUnnecessaryIsInstance]  # for who has no type checker
                raise InvalidArgument("posts", f"must each be a Post, which {safe_repr(post)} is not")
            news.append(
                new_event(
                    post.payload,
                    post.delay,
                    post.at,
                    post.id,
                    post.max_retries,
                    post.confirm_timeout,
                    post.max_run,
                    post.retry,
                    post.expires_after,
                    post.dead_letter,
                    post.if_exists,
                    post.headers,
                )
            )
        return news

    def new_event(  # noqa: PLR0917  # by position, and so are its values made: names take twice as long
        self,
        payload: PayloadT,
        delay: Delay | None,
        at: datetime | None,
        id: str | None,
        max_retries: int,
        confirm_timeout: Timeout | None,
        max_run: Timeout | None,
        retry: Retry | None,
        expires_after: Delay | None,
        dead_letter: bool,
        if_exists: IfExistsName,
        headers: Mapping[str, str] | None,
    ) -> NewEvent:
        """One event of the arguments of :meth:`dtimer.DTimer.post`. What was not given is not looked at for long.

        Raises:
            InvalidArgument: whatever is wrong with it.
        """
        if (
            (confirm_timeout is not None or max_run is not None or retry is not None)
            and not max_retries
            and dead_letter is False
        ):
            _validation.needs_confirm(confirm_timeout=confirm_timeout, max_run=max_run, retry=retry)
        new = NewEvent(
            EventData(
                self._token() if id is None else _validation.event_id(id),
                encode_payload(self._codec, payload, self._payload_max_bytes),
                b"" if headers is None else encode_headers(headers),
                _validation.max_retries(max_retries),
                None if confirm_timeout is None else _validation.timeout_us(confirm_timeout, "confirm_timeout"),
                None if expires_after is None else _validation.expires_after_us(expires_after),
                dead_letter is not False and _validation.flag(dead_letter, "dead_letter"),
                None if retry is None else _validation.retry(retry),
                None if max_run is None else _validation.timeout_us(max_run, "max_run"),
            ),
            _validation.due(delay, at),
            _validation.if_exists(if_exists),
        )
        if self._runtime.simulator is not None:
            self._runtime.simulator.posting(new)
        return new

    def _token(self) -> str:
        """Made many at a time, as each costs a call of the system."""
        while True:
            try:
                return self._tokens.pop()
            except IndexError:  # another thread may have taken the last one just now
                digits = self._runtime.token(ID_BYTES * TOKENS_AT_A_TIME)
                self._tokens = [digits[start : start + 2 * ID_BYTES] for start in range(0, len(digits), 2 * ID_BYTES)]

    def _forked(self) -> None:
        # They are the parent's.
        self._tokens = []


def encode_payload(codec: Codec[PayloadT], payload: PayloadT, max_bytes: int) -> bytes:
    """The bytes of a payload to post, at most `max_bytes` (rule P6).

    Raises:
        PayloadNotEncodable: the codec refused it, or made something else than bytes.
        PayloadTooLarge: it is over the limit.
    """
    try:
        data: object = codec.encode(payload)
    except BaseException as error:
        # In a test what pytest raises is about the test.
        if ends_the_program(error) or is_outcome(error):
            raise
        raise PayloadNotEncodable("payload", f"cannot be encoded: {safe_str(error)}; {_HOW_TO}") from error
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # a codec may be wrong
        raise PayloadNotEncodable("payload", f"was encoded as {type(data).__name__}, not bytes")
    if len(data) > max_bytes:
        raise PayloadTooLarge("payload", f"is {len(data)} bytes when encoded; {max_bytes} are allowed")
    return data
