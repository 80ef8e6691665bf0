"""Tells the tool calls of a chat stream apart and puts them one behind the other, as content blocks have to be.

Vendors number the pieces of calls in different ways. OpenAI gives each call an index and tells its id and name once;
others repeat the id or the name with each piece, send whole calls that are all numbered 0, or number none.
"""

from typing import Any, NamedTuple

import msgspec

from watchllm.providers.translation.messages_outcome import CallIds
from watchllm.wire.types import BadMessage

MAX_CALLS = 1024
"""Calls of one answer."""

MAX_ARGUMENTS = 4 * 1024 * 1024
"""Characters of arguments that are kept of one answer."""


class StreamedCall(NamedTuple):
    """What is to be told next: that a call `begins` (its `id` as the vendor told it, and its `name`), and a piece of
    its arguments."""

    begins: bool
    id: Any
    name: str
    arguments: str


class StreamedCalls:
    """The calls of one stream, in the order in which they began.

    One call at a time is told, piece by piece. A call that begins before the last one is whole has to wait: its pieces
    are kept until the stream's end.
    """

    __slots__ = ("_at", "_calls", "_kept", "_places", "_told", "ids")

    def __init__(self) -> None:
        self.ids = CallIds(None)
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}
        """Where the call with a vendor's index is among the calls; the last one where several share it."""
        self._at = -1
        """The call that pieces without any number belong to."""
        self._told = 0
        """The call that is being told, or is to be told next."""
        self._kept = 0

    def take(self, deltas: Any) -> list[StreamedCall]:
        """What can be told after the `tool_calls` of a delta. Raises BadMessage for what is none, or is too much."""
        if type(deltas) is not list:
            raise BadMessage("tool_calls of the stream is not a list")
        told: list[StreamedCall] = []
        for delta in deltas:
            self._take(delta, told)
        return told

    def rest(self) -> list[StreamedCall]:
        """What is left to be told when the answer has ended. Raises BadMessage for a call without a name."""
        told: list[StreamedCall] = []
        for place in range(self._told, len(self._calls)):
            call = self._calls[place]
            if call.name is None:
                raise BadMessage("a tool call of the stream has no name")
            call.tell(told)
        self._told = len(self._calls)
        return told

    def _take(self, delta: Any, told: list[StreamedCall]) -> None:
        function = delta.get("function") if type(delta) is dict else None
        if type(function) is not dict:
            raise BadMessage("a tool call of the stream is no function call")
        name = function.get("name") or None
        arguments = function.get("arguments")
        if type(arguments) is dict:
            arguments = _encode(arguments).decode()  # a vendor's habit: the object itself
        if (name is not None and type(name) is not str) or (arguments is not None and type(arguments) is not str):
            raise BadMessage("a tool call of the stream is malformed")
        place = self._place(delta, name)
        call = self._calls[place]
        if call.name is None:
            call.name = name
        if arguments:
            self._kept += len(arguments)
            if self._kept > MAX_ARGUMENTS:
                raise BadMessage("the tool calls of the stream are too long")
            call.add(arguments)
        if place < self._told and arguments:
            raise BadMessage("the stream goes on with a tool call that had ended")
        self._advance(told)

    def _place(self, delta: dict[str, Any], name: str | None) -> int:
        """The number of the call that `delta` is a piece of; a new one where it begins one."""
        index, id_ = delta.get("index"), delta.get("id") or None
        if index is not None and type(index) is not int:
            raise BadMessage("a tool call of the stream has no number")
        known = self._at if index is None else self._places.get(index, -1)
        if known >= 0 and not self._begins(self._calls[known], index, id_, name):
            self._at = known
            return known
        if len(self._calls) >= MAX_CALLS:
            raise BadMessage("the stream holds too many tool calls")
        self._calls.append(_Call(id_))
        self._at = len(self._calls) - 1
        if index is not None:
            self._places[index] = self._at
        return self._at

    def _begins(self, call: "_Call", index: int | None, id_: Any, name: str | None) -> bool:
        """Whether a piece that could go on with `call` begins another call."""
        if id_ is not None and call.id is not None:
            # With the same number, another id alone is a vendor's habit; with a name, it is another call.
            return bool(id_ != call.id) and (index is None or name is not None)
        # Without number and id, a name is told where a call begins.
        return index is None and name is not None and call.name is not None

    def _advance(self, told: list[StreamedCall]) -> None:
        """Tell on: the call at hand as far as it has come, and the next ones once it is whole."""
        while self._told < len(self._calls):
            call = self._calls[self._told]
            if call.name is None:
                return
            call.tell(told)
            if self._told + 1 == len(self._calls) or self._waiting(call):
                return
            self._told += 1

    def _waiting(self, call: "_Call") -> bool:
        """Whether `call` is not whole although another one has begun. Looked at once: then the others wait."""
        if call.torn is None:
            call.torn = not _is_whole("".join(call.pieces))
        return call.torn


class _Call:
    """One call: what has come of it, and how much of that has been told."""

    __slots__ = ("_begun", "_next", "id", "name", "pieces", "torn")

    def __init__(self, id_: Any) -> None:
        self.id = id_
        self.name: str | None = None
        self.pieces: list[str] = []
        self.torn: bool | None = None
        self._begun = False
        self._next = 0

    def add(self, arguments: str) -> None:
        self.pieces.append(arguments)

    def tell(self, told: list[StreamedCall]) -> None:
        """Put what has not been told yet on the list."""
        assert self.name is not None
        arguments = "".join(self.pieces[self._next :])
        if self._begun and not arguments:
            return
        told.append(StreamedCall(not self._begun, self.id, self.name, arguments))
        self._begun = True
        self._next = len(self.pieces)


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _is_whole(arguments: str) -> bool:
    """Whether a call can go on no more. None at all may still come: some vendors announce all calls first."""
    try:
        _decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
