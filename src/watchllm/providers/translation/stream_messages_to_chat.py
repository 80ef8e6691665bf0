"""Anthropic's stream of a message as OpenAI's stream of a chat completion, event by event.

| event | what is told |
|---|---|
| `message_start` | a chunk with the role |
| text | a chunk with `content` |
| thinking | a chunk with `reasoning_content`, and the same in `thinking_blocks` with its signature, to be sent back |
| a tool's beginning | a chunk with the call's id and name |
| a tool's input | a chunk with a piece of the arguments |
| `message_delta` | the citations, which need the text's length; then the chunk with the `finish_reason` |
| `message_stop` | a chunk with usage and no choice; `[DONE]` |
| `error` | an error in OpenAI's form; nothing follows |

Items of `thinking_blocks` carry an `index`, by which clients join their pieces.
"""

from typing import Any

import msgspec

from watchllm.providers.dialect import Untranslatable
from watchllm.providers.translation.answer_messages_to_chat import (
    BESIDE_CONTENT,
    LOSSY_REASONS,
    annotations_of,
    chat_usage,
    explanation_of,
    finish_reason_of,
    is_of_url,
    service_tier,
)
from watchllm.providers.translation.errors import anthropic_event_to_openai
from watchllm.wire.types import BadMessage

MAX_CITED = 1024 * 1024
"""Bytes of citations that are kept until the text is told."""

_MAX_BLOCKS = 4096


class Translator:
    """Translates one stream. `created` is the time that the chunks tell, in Unix seconds.

    Raises BadMessage for what is no event of Anthropic's in its place, and Untranslatable for content that chat has no
    form for and for a turn that was only paused; the stream cannot be gone on with after either.
    """

    __slots__ = (
        "_annotations",
        "_blocks",
        "_calls",
        "_citations",
        "_cited",
        "_created",
        "_end",
        "_ended",
        "_failed",
        "_has_text",
        "_length",
        "_opening",
        "_thoughts",
        "_usage",
        "exact",
    )

    def __init__(self, *, created: int = 0) -> None:
        self._created = created
        self._opening = b""
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._calls = 0
        self._has_text = False
        self._thoughts = 0
        self._length = 0
        self._cited = 0
        self._annotations: list[dict[str, Any]] = []
        self._citations: list[Any] = []
        self._end: dict[str, Any] | None = None
        self._ended = False
        self._failed = False
        self.exact = True

    def feed(self, data: bytes) -> bytes:
        """The chunks for the data of one event, maybe none; 3 µs for a piece of text."""
        if self._failed:
            return b""
        try:
            return self._take(_decode(data), len(data))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadMessage("an event of the stream is not JSON") from None
        except RecursionError:
            raise BadMessage("an event of the stream is nested too deep") from None

    def finish(self) -> bytes:
        """Nothing: the last event of a stream that ended well told the rest."""
        return b""

    def _take(self, event: Any, size: int) -> bytes:
        kind = event.get("type") if type(event) is dict else None
        if type(kind) is not str:
            raise BadMessage("an event of the stream is not an object with a type")
        if kind == "content_block_delta":
            return self._delta(event, size)
        if kind == "error":
            self._failed = True
            return anthropic_event_to_openai(event.get("error"))
        if self._ended and kind in _TELL:
            raise BadMessage("an event of the stream came behind its end")
        if kind == "message_start":
            return self._start(event)
        # Types of events that are not known mean nothing, as Anthropic asks of its clients.
        tell = _TELL.get(kind)
        return b"" if tell is None else tell(self, event)

    def _start(self, event: dict[str, Any]) -> bytes:
        message = event.get("message")
        if type(message) is not dict or self._opening:
            raise BadMessage("the stream does not begin with a message")
        head: dict[str, Any] = {
            "id": _text(message.get("id")),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": _text(message.get("model")),
        }
        tier = service_tier(message.get("usage"))
        if tier is not None:
            head["service_tier"] = tier
        self._take_usage(message.get("usage"))
        self._look_beside(message)
        self._opening = b"data: " + _encode(head)[:-1] + b',"choices":['
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _block_start(self, event: dict[str, Any]) -> bytes:
        index, begun = event.get("index"), event.get("content_block")
        if type(index) is not int or type(begun) is not dict or index in self._blocks or not self._opening:
            raise BadMessage("a content block does not begin as one")
        if len(self._blocks) >= _MAX_BLOCKS:
            raise BadMessage("the stream has too many content blocks")
        block = self._blocks[index] = _Block(begun.get("type"))
        if block.kind != "tool_use":
            # Chat has one text, after all thoughts and before all calls.
            self.exact = self.exact and not self._calls and not self._has_text
            self._has_text = self._has_text or block.kind == "text"
        if block.kind == "text":
            block.start = self._length
            return self._text(_text(begun.get("text")))
        if block.kind == "tool_use":
            block.number = self._calls
            self._calls += 1
            block.input = begun.get("input")
            function = {"name": _said(begun, "name"), "arguments": ""}
            return self._call(block, {"id": _said(begun, "id"), "type": "function", "function": function})
        if block.kind == "thinking" or block.kind == "redacted_thinking":
            block.number = self._thoughts
            self._thoughts += 1
            if block.kind == "redacted_thinking":
                return self._thought(block, data=_said(begun, "data"))
            return self._thinking(block, _text(begun.get("thinking")))
        raise Untranslatable(f"content of the type {str(block.kind)[:40]}")

    def _delta(self, event: dict[str, Any], size: int) -> bytes:
        index, delta = event.get("index"), event.get("delta")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or block.closed or type(delta) is not dict:
            raise BadMessage("a delta is of no content block")
        kind = delta.get("type")
        if block.kind != _OF_BLOCK.get(kind if type(kind) is str else ""):
            raise Untranslatable(f"a delta of the type {str(kind)[:40]} in a block of the type {block.kind}")
        if kind == "text_delta":
            return self._text(_said(delta, "text"))
        if kind == "input_json_delta":
            piece = _said(delta, "partial_json")
            if not piece:
                return b""
            block.told = True
            return self._call(block, {"function": {"arguments": piece}})
        if kind == "thinking_delta":
            return self._thinking(block, _said(delta, "thinking"))
        if kind == "signature_delta":
            return self._thought(block, signature=_said(delta, "signature"))
        self._cited += size
        if self._cited > MAX_CITED:
            raise BadMessage("the stream has too many citations")
        block.citations.append(delta.get("citation"))
        self.exact = False
        return b""

    def _block_stop(self, event: dict[str, Any]) -> bytes:
        index = event.get("index")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or block.closed:
            raise BadMessage("the end of no content block")
        block.closed = True
        if block.kind == "tool_use" and not block.told:
            # A tool without input is called with an object, though Anthropic sends no piece of one.
            given = block.input if type(block.input) is dict else {}
            return self._call(block, {"function": {"arguments": _encode(given).decode()}})
        self._annotations += annotations_of(block.citations, block.start, self._length)
        self._citations += [citation for citation in block.citations if not is_of_url(citation)]
        block.citations = []
        return b""

    def _message_delta(self, event: dict[str, Any]) -> bytes:
        delta = event.get("delta")
        if type(delta) is not dict or not self._opening:
            raise BadMessage("the end of no message")
        self._take_usage(event.get("usage"))
        if delta.get("stop_reason") is None:
            return b""
        # A second one may bring other counts; the same once more is an event that came twice.
        if self._end == event:
            raise BadMessage("the end of the message came twice")
        before, self._end = self._end, event
        if before is not None:
            return b""
        reason = finish_reason_of(delta["stop_reason"])
        if delta["stop_reason"] in LOSSY_REASONS:
            self.exact = False
        self._look_beside(delta)
        if not all(block.closed for block in self._blocks.values()):
            raise BadMessage("the message ends inside a content block")
        last: dict[str, Any] = {}
        if self._annotations:
            last["annotations"] = self._annotations
        if self._citations:
            last["citations"] = self._citations
        explanation = explanation_of(delta.get("stop_details"))
        if explanation is not None:
            last["refusal"] = explanation
        return (self._chunk(last) if last else b"") + self._chunk({}, reason)

    def _message_stop(self, _event: dict[str, Any]) -> bytes:
        if self._end is None:
            raise BadMessage("the stream ends without a stop_reason")
        self._ended = True
        usage = chat_usage(self._usage)
        told = b"" if usage is None else self._opening + b'],"usage":' + _encode(usage) + b"}\n\n"
        return told + b"data: [DONE]\n\n"

    def _text(self, text: str) -> bytes:
        self._length += len(text)
        return self._chunk({"content": text}) if text else b""

    def _thinking(self, block: "_Block", text: str) -> bytes:
        beside = {"reasoning_content": text} if text else {}
        return self._thought(block, beside, thinking=text)

    def _thought(self, block: "_Block", beside: dict[str, Any] | None = None, **members: str) -> bytes:
        item = {"index": block.number, "type": block.kind, **members}
        return self._chunk({**(beside or {}), "thinking_blocks": [item]})

    def _call(self, block: "_Block", call: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": block.number, **call}]})

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        # As OpenAI writes it for those who ask for usage; for all others the gateway cuts the last member off.
        reason = b"null" if finish_reason is None else b'"%b"' % finish_reason.encode()
        return b'%b{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}],"usage":null}\n\n' % (
            self._opening,
            _encode(delta),
            reason,
        )

    def _look_beside(self, message: dict[str, Any]) -> None:
        """At what a message tells beside its content, and a chat does not."""
        if any(message.get(field) is not None for field in BESIDE_CONTENT):
            self.exact = False

    def _take_usage(self, usage: Any) -> None:
        """Counts of a later event are totals; what it does not tell stays as it was told."""
        if type(usage) is dict:
            for field in _COUNTS:
                if usage.get(field) is not None:
                    self._usage[field] = usage[field]


class _Block:
    """A content block under way. `number` is its place among the calls, or among the thoughts."""

    __slots__ = ("citations", "closed", "input", "kind", "number", "start", "told")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.number = 0
        self.start = 0
        self.input: Any = None
        self.told = False
        self.closed = False
        self.citations: list[Any] = []


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_TELL = {
    "content_block_start": Translator._block_start,
    "content_block_stop": Translator._block_stop,
    "message_delta": Translator._message_delta,
    "message_stop": Translator._message_stop,
}
_OF_BLOCK = {
    "text_delta": "text",
    "citations_delta": "text",
    "input_json_delta": "tool_use",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
}
_COUNTS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
)


def _said(holder: dict[str, Any], field: str) -> str:
    value = holder.get(field)
    if type(value) is not str:
        raise BadMessage(f"an event of the stream lacks its {field}")
    return value


def _text(value: Any) -> str:
    return value if type(value) is str else ""
