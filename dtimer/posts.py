"""Checks what a user posts and encodes it, before any I/O: no store ever gets what it would have to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict

from attrs import Attribute, field
from typing_extensions import Unpack, override

from dtimer import _validation
from dtimer._validation import Delay, IfExistsName, Retry, Timeout
from dtimer.codecs.codec import Codec, PayloadT, encode_headers
from dtimer.errors import InvalidArgument, PayloadNotEncodable, PayloadTooLarge
from dtimer.frozen import frozen
from dtimer.loop_local import after_fork
from dtimer.protocol.backend import Runtime
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import EVENT_FIELDS, EventData, NewEvent
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


class PostOptions(TypedDict, total=False):
    """How an event is to be delivered; `OPTIONS` says what becomes of each.

    Attributes:
        max_retries: deliveries after the first, if that is not confirmed in time.
            0 means at most once: such an event is gone from the store as soon as it is delivered.
        confirm_timeout: seconds, or a timedelta; else the taking node's. Needs `max_retries` or `dead_letter`.
        expires_after: milliseconds, or a timedelta, after the due time; later it is not delivered but reported.
        dead_letter: it becomes a dead letter when it ends without having been confirmed; it must be confirmed then.
        retry: when the event comes again after its handler raised; at its deadline if not given.
            Needs `max_retries` or `dead_letter`.
        max_run: seconds, or a timedelta, for which its handler may run; the taking timer's if not given (rule D4).
            Needs `max_retries` or `dead_letter`.
    """

    max_retries: int
    confirm_timeout: Timeout | None
    expires_after: Delay | None
    dead_letter: bool
    retry: Retry | None
    max_run: Timeout | None


@frozen
class Option:
    """What becomes of an option.

    Attributes:
        field: of :class:`EventData`, which it sets.
        check: makes the field's value of what was given, or raises InvalidArgument.
        default: stands for not given: it is not checked, and leaves the field as it is.
        without_confirm: what makes it meaningless for an event that requires no confirm; empty: nothing does.
    """

    field: str
    check: Callable[[object], object]
    default: object = None
    without_confirm: str = ""


def _timeout(argument: str) -> Callable[[object], int]:
    return partial(_validation.timeout_us, argument=argument)


OPTIONS: Final = {
    "max_retries": Option("max_retries", _validation.max_retries, 0),
    "confirm_timeout": Option(
        "confirm_timeout_us", _timeout("confirm_timeout"), without_confirm="so there is nothing to confirm"
    ),
    "expires_after": Option("expires_after_us", _validation.expires_after_us),
    "dead_letter": Option("dead_letter", partial(_validation.flag, argument="dead_letter"), False),
    "retry": Option("retry", _validation.retry, without_confirm="so it does not come again after a failure"),
    "max_run": Option(
        "max_run_us", _timeout("max_run"), without_confirm="so its handler may run for as long as it likes"
    ),
}


def _values_of(*by_place: object, **by_name: object) -> tuple[Any, ...]:
    """Of `EVENT_FIELDS`, for options as they were given: all of them in the order of `OPTIONS`, or some by name.

    Raises:
        InvalidArgument: whatever is wrong with one.
    """
    options = dict(zip(OPTIONS, by_place, strict=False)) | by_name
    given = [(name, OPTIONS[name], value) for name, value in options.items() if value is not OPTIONS[name].default]
    values = {field.name: field.default for field in EVENT_FIELDS}
    for _, option, value in given:
        values[option.field] = option.check(value)
    for name, option, _ in given:
        # Rules D3 and D4.
        if option.without_confirm and not (values["max_retries"] or values["dead_letter"]):
            problem = "needs max_retries of 1 or more, or dead_letter=True: without either an event is delivered at "
            raise InvalidArgument(name, f"{problem}most once, {option.without_confirm}")
    return tuple(values.values())


_values_of_known: Final[Callable[..., tuple[Any, ...]]] = lru_cache(maxsize=256, typed=True)(_values_of)
"""Most posts are given what others were; to look at each again takes a tenth of what a post costs a client.

By type, too: `True` is refused where a number of retries is wanted.
"""


def checked(options: PostOptions) -> tuple[Any, ...]:
    """The values of `EVENT_FIELDS`, or none if all are the defaults.

    Raises:
        InvalidArgument: whatever is wrong with one.
    """
    if not options:
        return ()
    try:
        return _values_of_known(**options)
    except (KeyError, TypeError):  # a name or a value that cannot be looked up
        for name in options.keys() - OPTIONS.keys():
            raise TypeError(f"post() got an unexpected keyword argument {name!r}") from None
        return _values_of(**options)


def _with_options(_: type, fields: list[Attribute[Any]]) -> list[Attribute[Any]]:
    """A field for each option behind those of the class."""
    last = fields[-1]
    options = [last.evolve(name=name, alias=name, default=option.default) for name, option in OPTIONS.items()]
    return [*fields, *options]


@frozen(init=False, field_transformer=_with_options)
class Post(Generic[PayloadT]):
    """One item of :meth:`dtimer.DTimer.post_many`; its fields are the arguments of :meth:`dtimer.DTimer.post`."""

    payload: PayloadT
    delay: Delay | None = None
    at: datetime | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)
    if_exists: IfExistsName = field(default="replace", kw_only=True)
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)

    if TYPE_CHECKING:

        def __init__(
            self,
            payload: PayloadT,
            delay: Delay | None = None,
            *,
            at: datetime | None = None,
            id: str | None = None,
            if_exists: IfExistsName = "replace",
            headers: Mapping[str, str] | None = None,
            **options: Unpack[PostOptions],
        ) -> None: ...


if not TYPE_CHECKING:
    # It takes the options as arguments of their own: a dict of them would make posting in bulk a tenth slower.
    Post.__init__ = Post.__attrs_init__

_options_of: Final[Callable[[Post[Any]], tuple[object, ...]]] = eval(  # faster than an attrgetter
    f"lambda post: ({', '.join(f'post.{name}' for name in OPTIONS)})"
)


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
        new_event, options_of, values_of = self.new_event, _options_of, _values_of_known
        news: list[NewEvent] = []
        for post in _validation.many(posts, "posts"):
            if not isinstance(post, Post):  # pyright: ignore[reportUnnecessaryIsInstance]  # for who has no type checker
                raise InvalidArgument("posts", f"must each be a Post, which {safe_repr(post)} is not")
            options = options_of(post)
            try:
                values = values_of(*options)
            except TypeError:  # a value that cannot be looked up
                values = _values_of(*options)
            news.append(new_event(post.payload, post.delay, post.at, post.id, post.if_exists, post.headers, values))
        return news

    def new_event(  # noqa: PLR0917  # by position: names take longer
        self,
        payload: PayloadT,
        delay: Delay | None,
        at: datetime | None,
        id: str | None,
        if_exists: IfExistsName,
        headers: Mapping[str, str] | None,
        values: tuple[Any, ...],
    ) -> NewEvent:
        """One event of the arguments of :meth:`dtimer.DTimer.post`, the options checked already.

        Raises:
            InvalidArgument: whatever is wrong with it.
        """
        new = NewEvent(
            EventData(
                self._token() if id is None else _validation.event_id(id),
                encode_payload(self._codec, payload, self._payload_max_bytes),
                b"" if headers is None else encode_headers(headers),
                *values,
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
