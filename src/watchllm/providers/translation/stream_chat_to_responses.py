"""A stream of chat completion chunks as the events of a response."""

from typing import Any

import msgspec

from watchllm.providers.dialect import Untranslatable
from watchllm.providers.doubled import Ends
from watchllm.providers.responses.errors import stream_error
from watchllm.providers.responses.events import EventWriter
from watchllm.providers.translation import responses_form, responses_output
from watchllm.providers.translation.answer_chat_to_responses import UNTOLD, USUAL_REASONS
from watchllm.providers.translation.responses_growing import GrowingCall, GrowingMessage, GrowingReasoning
from watchllm.wire.types import BadMessage

MAX_LENGTH = 4 * 1024 * 1024
"""Default bound of one answer, in characters of text (structure is charged by its size on the wire). Its last events
hold the whole of it, so it has to be kept while it grows."""


class Translator:
    """Translates the stream that answers the Responses request `request`, event by event; about 3 µs each.

    A message or reasoning is closed when something else begins, calls only at the end: vendors may tell parallel calls
    in turns. An answer longer than `limit` is refused.
    """

    def __init__(self, request: dict[str, Any], *, limit: int = MAX_LENGTH) -> None:
        self._request = request
        self._left = limit
        self._events = EventWriter()
        self._ids = responses_form.Ids(None, b"")
        self._response: dict[str, Any] | None = None
        self._items: list[GrowingMessage | GrowingReasoning | GrowingCall] = []
        self._open: GrowingMessage | GrowingReasoning | None = None
        self._calls: list[_Call] = []
        self._thought_field: str | None = None
        self._ends = Ends()
        self._finish_reason: Any = None
        self._usage: Any = None
        self._ended = False
        self.exact = True

    def feed(self, data: bytes) -> bytes:
        """The events for the data of one chunk. After an error, or the end, there are none.

        Raises BadMessage for what is no chunk of one choice, or exceeds the bound.
        """
        if self._ended:
            return b""
        if data.startswith(b"[DONE]"):
            self._ended = True
            return self._ending()
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadMessage("an event of the stream is not JSON") from None
        if type(chunk) is not dict:
            raise BadMessage("an event of the stream is not an object")
        if chunk.get("error"):
            self._ended = True
            return self._error(chunk["error"])
        self._take_usage(chunk)
        choice = _only_choice(chunk)
        if choice is None:
            return b""
        self._left -= _length(choice, len(data))
        if self._left < 0:
            raise BadMessage("the answer is too large to be translated")
        try:
            return self._begin(chunk, data) + self._take_choice(choice, data)
        except Untranslatable as reason:
            raise BadMessage(f"the answer cannot be told as a response: {reason}") from None
        except RecursionError:
            raise BadMessage("an event of the stream is nested too deep") from None

    def finish(self) -> bytes:
        """Nothing: a stream's end is told at its end marker, and a stream without one was cut."""
        return b""

    def _begin(self, chunk: dict[str, Any], data: bytes) -> bytes:
        if self._response is not None:
            return b""
        self._ids = responses_form.Ids(chunk.get("id"), data)
        self._response = responses_form.begun(self._request, self._ids, chunk)
        return self._events.begun(self._response)

    def _take_usage(self, chunk: dict[str, Any]) -> None:
        usage, groq = chunk.get("usage"), chunk.get("x_groq")
        if usage is None and type(groq) is dict:
            usage = groq.get("usage")
        if usage is not None:
            self._usage = usage

    def _take_choice(self, choice: dict[str, Any], data: bytes) -> bytes:
        reason = choice.get("finish_reason")
        if reason is not None:
            self._finish_reason = reason
        if reason and self._ends.finishes(data):
            raise BadMessage("the events of the stream come twice")
        if reason and reason not in USUAL_REASONS:
            self.exact = False
        delta = choice.get("delta")
        if type(delta) is not dict:
            return b""
        if "role" in delta and not reason:
            self._ends.opens(delta)
        if any(delta.get(field) for field in UNTOLD):
            self.exact = False
        if delta.get("audio") or delta.get("images") or delta.get("function_call"):
            raise Untranslatable("it has audio, images or a function call of the old form")
        told = [self._take_thought(delta), self._take_said(delta, choice.get("logprobs"))]
        calls = delta.get("tool_calls")
        if calls is not None and type(calls) is not list:
            raise Untranslatable("its tool calls are no list")
        told += map(self._take_call, calls or ())
        return b"".join(told)

    def _take_thought(self, delta: dict[str, Any]) -> bytes:
        if self._thought_field is None:
            # Some vendors tell the same reasoning under both names; the first that has any counts.
            self._thought_field = next((name for name in ("reasoning_content", "reasoning") if delta.get(name)), None)
        thought = delta.get(self._thought_field) if self._thought_field is not None else None
        text = thought if type(thought) is str else ""
        blocks = responses_output.thinking_blocks(delta.get("thinking_blocks"))
        if not text and not blocks:
            return b""
        told, reasoning = self._reasoning()
        for block in blocks:
            reasoning.keep(block)
        return told + reasoning.thought(text) if text else told

    def _take_said(self, delta: dict[str, Any], logprobs: Any) -> bytes:
        content, refused = delta.get("content"), delta.get("refusal")
        tokens = responses_output.logprobs(logprobs.get("content")) if type(logprobs) is dict else []
        annotations = responses_output.flat_annotations(delta.get("annotations"))
        if len(annotations) != _count(delta.get("annotations")) or len(tokens) != _tokens_in(logprobs):
            self.exact = False
        if content is not None and type(content) is not str:
            raise Untranslatable("its content is no text")
        refusal = refused if type(refused) is str else ""
        if not (content or tokens or annotations or refusal):
            return b""
        told, message = self._message()
        if content or tokens:
            told += message.said(content or "", tokens)
        for annotation in annotations:
            told += message.annotated(annotation)
        return told + message.refused(refusal) if refusal else told

    def _take_call(self, piece: Any) -> bytes:
        if type(piece) is not dict:
            raise Untranslatable("it has a malformed tool call")
        told = self._close_open()
        call = self._call_of(piece)
        kind = responses_output.call_kind(piece)
        inner = piece.get(kind.holder)
        inner = inner if type(inner) is dict else {}
        call.waiting += responses_output.written_text(inner.get(kind.field))
        name = inner.get("name")
        if call.item is None and type(name) is str and name:
            index = len(self._items)
            item_id = self._ids.item(kind.prefix, index)
            call.item = GrowingCall(self._events, kind, item_id, index, call.id, name)
            self._items.append(call.item)
            told += call.item.opened()
        if call.item is not None and call.waiting:
            told += call.item.written(call.waiting)
            call.waiting = ""
        return told

    def _call_of(self, piece: dict[str, Any]) -> "_Call":
        """The call that a piece goes on with, or a new one."""
        index, call_id = piece.get("index"), piece.get("id")
        if type(index) is int:
            for call in reversed(self._calls):
                # Some vendors number all parallel calls 0; another id is another call.
                if call.index == index:
                    if call_id and call.id and call_id != call.id:
                        break
                    call.id = call.id or call_id
                    return call
        elif self._calls and not call_id:
            # Vendors that number no calls send each whole, or name it in its first piece.
            return self._calls[-1]
        if len(self._calls) >= _MAX_CALLS:
            raise Untranslatable("it has too many tool calls")
        self._calls.append(_Call(index, call_id))
        return self._calls[-1]

    def _message(self) -> tuple[bytes, GrowingMessage]:
        """The open message, and what had to be told to open it."""
        if type(self._open) is GrowingMessage:
            return b"", self._open
        told, index = self._close_open(), len(self._items)
        self._left -= _ITEM_LENGTH
        message = GrowingMessage(self._events, self._ids.item("msg", index), index)
        self._items.append(message)
        self._open = message
        return told + message.opened(), message

    def _reasoning(self) -> tuple[bytes, GrowingReasoning]:
        """The open reasoning, and what had to be told to open it."""
        if type(self._open) is GrowingReasoning:
            return b"", self._open
        told, index = self._close_open(), len(self._items)
        self._left -= _ITEM_LENGTH
        reasoning = GrowingReasoning(self._events, self._ids.item("rs", index), index)
        self._items.append(reasoning)
        self._open = reasoning
        return told + reasoning.opened(), reasoning

    def _close_open(self) -> bytes:
        open_item, self._open = self._open, None
        return b"" if open_item is None else open_item.closed("completed")

    def _ending(self) -> bytes:
        if self._response is None or self._finish_reason is None:
            return b""
        try:
            ending = responses_form.ending(self._finish_reason)
        except Untranslatable as reason:
            return self._error({"message": f"The provider's answer failed: {reason}."})
        if any(call.item is None for call in self._calls):
            return self._error({"message": "The provider called a tool without naming it."})
        told, output = [], []
        for number, item in enumerate(self._items):
            is_last = number == len(self._items) - 1
            status = str(ending["status"]) if is_last else "completed"
            if item is self._open or type(item) is GrowingCall:
                told.append(item.closed(status))
            output.append(item.item(status))
        response = self._response | ending | {"output": output, "usage": responses_form.usage(self._usage)}
        return b"".join(told) + self._events.ended(response)

    def _error(self, given: Any) -> bytes:
        error = given if type(given) is dict else {"message": given}
        told = {field: _as_text(error.get(field)) for field in ("message", "type", "param", "code")}
        told["message"] = told["message"] or "The provider failed within its answer; try again."
        return stream_error(told, sequence_number=self._events.number)


class _Call:
    """A call in the chat's stream; `waiting` is what was written before its name came."""

    __slots__ = ("id", "index", "item", "waiting")

    def __init__(self, index: Any, call_id: Any) -> None:
        self.index = index
        self.id = call_id
        self.waiting = ""
        self.item: GrowingCall | None = None


_decode = msgspec.json.Decoder().decode

_MAX_CALLS = 4096


def _only_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if choices is None or choices == []:
        return None
    choice = choices[0] if type(choices) is list and len(choices) == 1 else None
    if type(choice) is not dict or choice.get("index", 0) not in (0, None):
        raise BadMessage("an event of the stream is no chunk of one choice")
    return choice


def _length(choice: dict[str, Any], size: int) -> int:
    """What a chunk of `size` bytes adds to what is kept."""
    delta = choice.get("delta")
    if choice.get("logprobs") or type(delta) is not dict or delta.keys() - _TEXTS:
        return size
    return sum(len(text) for text in delta.values() if type(text) is str)


_TEXTS = frozenset(("role", "content", "reasoning_content", "reasoning"))
# What an item takes beside its text: a stream may begin one with every chunk.
_ITEM_LENGTH = 512


def _count(given: Any) -> int:
    return len(given) if type(given) is list else 0


def _tokens_in(logprobs: Any) -> int:
    return _count(logprobs.get("content")) if type(logprobs) is dict else 0


def _as_text(value: Any) -> str | None:
    """Codes are numbers with some vendors."""
    return value if type(value) is str else str(value) if type(value) is int else None
