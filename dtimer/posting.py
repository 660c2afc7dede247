"""From what a user posts to what a store is given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Generic

from dtimer import arguments
from dtimer.arguments import Delay, IfExistsName, Retry, Timeout
from dtimer.codec import Codec, PayloadT, encode_headers, encode_payload
from dtimer.errors import InvalidArgument
from dtimer.frozen import frozen
from dtimer.outcomes import PostOutcome
from dtimer.protocol import Runtime
from dtimer.values import EventData, NewEvent

ID_BYTES: Final = 8
"""Of made ids and of nonces: 2**64 of them, as hex."""
TOKENS_AT_A_TIME: Final = 64


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


@frozen(kw_only=True)
class Post(Generic[PayloadT]):
    """One item of :meth:`dtimer.DTimer.post_many`; its fields are the arguments of :meth:`dtimer.DTimer.post`."""

    payload: PayloadT
    delay: Delay | None = None
    at: datetime | None = None
    id: str | None = None
    max_retries: int = 0
    confirm_timeout: Timeout | None = None
    retry: Retry | None = None
    expires_after: Delay | None = None
    keep: bool = False
    if_exists: IfExistsName = "replace"
    headers: Mapping[str, str] | None = None


class Posting(Generic[PayloadT]):
    """Checks posts and encodes their payloads."""

    def __init__(self, codec: Codec[PayloadT], payload_max_bytes: int, runtime: Runtime) -> None:
        self._codec = codec
        self._payload_max_bytes = payload_max_bytes
        self._runtime = runtime
        self._tokens: list[str] = []

    def new_event(self, post: Post[PayloadT]) -> NewEvent:
        """Raises InvalidArgument for whatever is wrong with it. What was not given is not looked at for long."""
        if not isinstance(post, Post):  # pyright: ignore[reportUnnecessaryIsInstance]  # for who has no type checker
            raise InvalidArgument("posts", f"must each be a Post, which {post!r} is not")
        nonce = self._token()
        event = EventData(
            # One that is made is as unique as the nonce: it is the nonce.
            id=nonce if post.id is None else arguments.event_id(post.id),
            max_retries=arguments.max_retries(post.max_retries),
            confirm_timeout_us=(
                None if post.confirm_timeout is None else arguments.timeout_us(post.confirm_timeout, "confirm_timeout")
            ),
            expires_after_us=None if post.expires_after is None else arguments.expires_after_us(post.expires_after),
            keep=post.keep is not False and arguments.flag(post.keep, "keep"),
            retry=None if post.retry is None else arguments.retry(post.retry),
            headers=b"" if post.headers is None else encode_headers(post.headers),
            payload=encode_payload(self._codec, post.payload, self._payload_max_bytes),
            nonce=nonce,
        )
        return NewEvent(event, arguments.due(post.delay, post.at), arguments.if_exists(post.if_exists))

    def _token(self) -> str:
        """Made many at a time, as each costs a call of the system. (A forked process never comes here: rule F8.)"""
        if not self._tokens:
            digits = self._runtime.token(ID_BYTES * TOKENS_AT_A_TIME)
            self._tokens = [digits[start : start + 2 * ID_BYTES] for start in range(0, len(digits), 2 * ID_BYTES)]
        return self._tokens.pop()


def size_bytes(new: NewEvent) -> int:
    """What counts towards the size of a call (rule D5)."""
    return len(new.event.payload) + len(new.event.headers)
