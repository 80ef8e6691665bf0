"""Puts the events of a stream together into the message that the same request would have got without `stream`.

| event | what is taken from it |
|---|---|
| `message_start` | the message, still empty |
| `content_block_start` | a block, in most cases still empty |
| `content_block_delta` | text, thinking, its signature, a piece of a tool's input as JSON, or a citation |
| `message_delta` | how the message ended; usage, whose counts are totals and replace those told before |
| `message_stop` | that this was all |
| `error` | the error; nothing else follows |

`ping` means nothing, and event types that are not known are passed over, as Anthropic asks of its clients. A delta of
an unknown kind would be missing in the message, so such a stream has no result.
"""

from io import StringIO
from typing import Any

import msgspec
from msgspec import structs

from watchllm.domain.usage import TokenUsage
from watchllm.providers import tokens
from watchllm.providers.anthropic.usage import token_usage
from watchllm.providers.doubled import Pairs

MAX_BYTES = 4 * 1024 * 1024
"""Default bound of what one assembly keeps, in characters of text (structure is charged by its size on the wire)."""


class StreamAssembler:
    """Reads one stream along. Feed it the data of each event; ask for `result` at the end.

    Beyond `limit` the text is forgotten and there will be no result, but usage and the ending are still read.
    """

    __slots__ = (
        "_blocks",
        "_charged",
        "_end",
        "_limit",
        "_message",
        "_pairs",
        "_usage",
        "done",
        "error",
        "failure",
        "text_length",
    )

    def __init__(self, *, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._charged = 0
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self._pairs = Pairs()
        self.done = False
        """Whether `message_stop` came."""
        self.error: Any = None
        """The error object that came in the stream, if one did."""
        self.failure: str | None = None
        """Why there will be no result whatever comes: the stream cannot be read, or is too large."""
        self.text_length = 0
        """Characters of text seen so far, to estimate the tokens of a stream that was cut."""

    @property
    def usage(self) -> TokenUsage | None:
        """What the stream reported. The output of one that was cut is estimated: its beginning tells but the input."""
        usage = token_usage(self._usage)
        if usage is None or self._end is not None:
            return usage
        written = tokens.rough(self.text_length) if self.failure is not None else tokens.estimate(self.text)
        return structs.replace(usage, output=max(usage.output, written), estimated=True)

    @property
    def text(self) -> str:
        """All that the model wrote so far: text, thinking, inputs of tools; empty once it was forgotten."""
        return " ".join(filter(None, [block.written() for _, block in sorted(self._blocks.items())]))

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """The `stop_reason`, once it came."""
        reason = self._message.get("stop_reason") if self._message is not None else None
        return (reason,) if type(reason) is str else ()

    def feed(self, data: bytes) -> None:
        """Take the data of the next event in; about 2 µs. Raises nothing: see `failure` and `error`."""
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._fail("an event is not JSON")
            return
        except RecursionError:
            self._fail("an event is nested too deep")
            return
        if type(event) is not dict or type(event.get("type")) is not str:
            self._fail("an event is not an object with a type")
            return
        kind = event["type"]
        if kind == "content_block_delta":
            self._take_delta(event, len(data))
        elif kind == "content_block_start":
            self._take_start(event, len(data))
        elif kind == "content_block_stop":
            self._take_stop(event)
        elif kind == "message_delta":
            self._take_end(event, len(data))
        elif kind == "message_start":
            self._take_message(event, len(data))
        elif kind == "message_stop":
            if self.done:
                self._fail("its end came twice")
            self.done = True
        elif kind == "error":
            self.error = event.get("error") or event
        if self._charged > self._limit:
            self._fail("too large")

    def result(self) -> bytes | None:
        """The whole message as JSON, or None when the stream was cut, failed, or could not be put together."""
        if not self.done or self._end is None or self.error is not None or self.failure is not None:
            return None
        blocks = [block for _, block in sorted(self._blocks.items())]
        if self._message is None or self._pairs.doubled or not all(block.closed for block in blocks):
            return None
        try:
            content = [block.finished() for block in blocks]
            usage = {"usage": self._usage} if self._usage else {}
            return _encode(self._message | {"content": content} | usage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        for block in self._blocks.values():
            block.forget()
        if self._message is not None:
            self._message = {"stop_reason": self._message.get("stop_reason")}

    def _take_message(self, event: dict[str, Any], size: int) -> None:
        message = event.get("message")
        if type(message) is not dict or self._message is not None:
            self._fail("a message does not begin as one")
            return
        self._charged += size
        self._take_usage(message.get("usage"))
        self._message = message
        content = message.get("content")
        if content:
            self._fail("a message begins with content")

    def _take_usage(self, usage: Any) -> None:
        """Counts of a later event are totals; what it does not tell stays as it was told."""
        if type(usage) is not dict:
            return
        for field, value in usage.items():
            # Of a stream that is not kept, only the counts are, so that nothing grows any more.
            if self.failure is not None and (field not in _COUNTS or type(value) is not int):
                continue
            if value is not None or field not in self._usage:
                self._usage[field] = value

    def _take_start(self, event: dict[str, Any], size: int) -> None:
        index, block = event.get("index"), event.get("content_block")
        if type(index) is not int or index in self._blocks or type(block) is not dict:
            self._fail("a content block does not begin as one")
        elif len(self._blocks) >= _MAX_BLOCKS:
            self._fail("too many content blocks")
        elif self.failure is None:
            self._charged += size
            self._blocks[index] = begun = _Block(block)
            self.text_length += begun.length

    def _take_delta(self, event: dict[str, Any], size: int) -> None:
        index, delta = event.get("index"), event.get("delta")
        block = self._blocks.get(index) if type(index) is int else None
        if type(delta) is not dict:
            self._fail("a delta is not an object")
            return
        kind = delta.get("type")
        field = _TEXTS.get(kind) if type(kind) is str else None
        piece = delta.get(field) if field is not None else None
        if type(piece) is str:
            self.text_length += len(piece)
        if self.failure is not None:
            return
        if block is None or block.closed:
            self._fail("a delta of no content block")
        elif field is not None and type(piece) is str:
            self._charged += len(piece)
            if self._pairs.open and piece:
                self._pairs.take(piece)
            block.append(field, piece)
        elif kind == "signature_delta" and type(delta.get("signature")) is str:
            self._charged += size
            block.start["signature"] = delta["signature"]
        elif kind == "citations_delta":
            self._charged += size
            block.cite(delta.get("citation"))
        else:
            self._fail("a delta of an unknown kind")

    def _take_stop(self, event: dict[str, Any]) -> None:
        index = event.get("index")
        block = self._blocks.get(index) if type(index) is int else None
        if block is not None and not block.closed:
            block.closed = True
        else:
            self._fail("the end of no content block")

    def _take_end(self, event: dict[str, Any], size: int) -> None:
        self._take_usage(event.get("usage"))
        delta = event.get("delta")
        if type(delta) is not dict or self._message is None:
            self._fail("an end of no message")
            return
        if type(delta.get("stop_reason")) is str:
            # A second one may bring other counts; the same once more is an event that came twice.
            if self._end == event:
                self._fail("its end came twice")
            self._end = event
            self._message["stop_reason"] = delta["stop_reason"]
        if self.failure is not None:
            return
        self._charged += size
        # What else is told beside the delta is of the whole message too (`context_management`).
        self._message |= delta
        self._message |= {field: value for field, value in event.items() if field not in _NOT_OF_MESSAGE}


class _Block:
    """One content block under way: `start` is the block as it began, the rest has come since."""

    __slots__ = ("closed", "length", "pieces", "start")

    def __init__(self, start: dict[str, Any]) -> None:
        self.start = start
        self.pieces: dict[str, StringIO] = {}
        self.closed = False
        self.length = sum(len(start[field]) for field in ("text", "thinking") if type(start.get(field)) is str)

    def append(self, field: str, piece: str) -> None:
        pieces = self.pieces.get(field)
        if pieces is None:
            pieces = self.pieces[field] = StringIO()
        pieces.write(piece)

    def cite(self, citation: Any) -> None:
        citations = self.start.get("citations")
        if type(citations) is not list:
            citations = self.start["citations"] = []
        citations.append(citation)

    def forget(self) -> None:
        self.start = {}
        self.pieces = {}

    def written(self) -> str:
        begun = [self.start[field] for field in ("text", "thinking") if type(self.start.get(field)) is str]
        return "".join([*begun, *[pieces.getvalue() for pieces in self.pieces.values()]])

    def finished(self) -> dict[str, Any]:
        """The whole block. Raises DecodeError when a tool's input is not an object in JSON."""
        block = dict(self.start)
        for field, pieces in self.pieces.items():
            text = pieces.getvalue()
            if field != "partial_json":
                begun = block.get(field)
                block[field] = (begun if type(begun) is str else "") + text
            elif text:
                # Kept as it is spelled; decoding only proves that it is one.
                _decode_object(text)
                block["input"] = msgspec.Raw(text.encode())
        return block


_decode = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode

_MAX_BLOCKS = 4096
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_COUNTS = frozenset(("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"))
_NOT_OF_MESSAGE = frozenset(("type", "delta", "usage"))
