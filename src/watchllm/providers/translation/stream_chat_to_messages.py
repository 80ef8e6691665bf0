"""A stream of chat completion chunks as the event stream of a message, event by event.

A message is a row of content blocks, each begun, told in deltas and ended before the next one; a chat's deltas name no
blocks. So a block ends where the next delta is of another kind, and the stop reason, which a chat tells before its
usage, is held until the usage has come or the stream has ended.
"""

from typing import Any

import msgspec

from watchllm.providers.dialect import Untranslatable
from watchllm.providers.translation.answer_chat_to_messages import text_parts
from watchllm.providers.translation.errors import openai_event_to_anthropic
from watchllm.providers.translation.messages_outcome import (
    STOP_REASONS,
    CallIds,
    citations,
    message_usage,
    stop,
    stop_sequence,
)
from watchllm.providers.translation.streamed_calls import StreamedCall, StreamedCalls
from watchllm.wire.types import BadMessage


class Translator:
    """Translates one stream, which an error in it names by `request_id`. Feed it each event's data; some 10 µs each.

    An error in the stream ends the translation: what is fed afterwards tells nothing.
    """

    __slots__ = (
        "_block",
        "_calls",
        "_cited",
        "_finish",
        "_has_calls",
        "_index",
        "_out",
        "_over",
        "_prefix",
        "_refused",
        "_request_id",
        "_sequence",
        "_signature",
        "_started",
        "_stop_told",
        "_thought",
        "_usage",
    )

    def __init__(self, request_id: str = "") -> None:
        self._request_id = request_id
        self._out: list[bytes] = []
        self._started = False
        self._over = False
        self._index = -1
        self._block: str | None = None
        """The kind of the block that is open: text, thinking or tool_use."""
        self._prefix = b""
        """The event of a delta of the open block, up to its text."""
        self._signature = ""
        self._thought: int | None = None
        """The number that the provider gave the last thinking block, if it numbers them."""
        self._cited: list[dict[str, Any]] = []
        self._calls = StreamedCalls()
        self._has_calls = False
        self._finish: str | None = None
        self._sequence: str | None = None
        self._refused = False
        self._usage: Any = None
        self._stop_told = False

    def feed(self, data: bytes) -> bytes:
        """The events of a message stream for the data of one event, maybe none.

        Raises BadMessage for what is no chunk, or holds what a message has no form for.
        """
        if self._over:
            return b""
        if data.startswith(b"[DONE]"):
            self._end()
        else:
            try:
                self._take(_decode(data))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise BadMessage("an event of the stream is not JSON") from None
            except RecursionError:
                raise BadMessage("an event of the stream is nested too deep") from None
            except Untranslatable as error:
                raise BadMessage(f"the stream holds {error}") from None
        told = b"".join(self._out)
        self._out.clear()
        return told

    def finish(self) -> bytes:
        """Nothing: a chat's own end tells the end of the message, and without it the stream was cut."""
        return b""

    def _take(self, chunk: Any) -> None:
        if type(chunk) is not dict:
            raise BadMessage("an event of the stream is not an object")
        error = chunk.get("error") or (chunk if chunk.get("object") == "error" else None)
        choices = chunk.get("choices")
        if error is None and type(choices) is list and choices and type(choices[0]) is dict:
            error = choices[0].get("error")
        if error:
            self._out.append(openai_event_to_anthropic(error, self._request_id))
            self._over = True
            return
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = usage
        elif type(groq := chunk.get("x_groq")) is dict and groq.get("usage") is not None:
            self._usage = groq["usage"]
        if choices:
            self._take_choices(choices, chunk)
        elif self._finish is not None and usage is not None:
            self._tell_stop()

    def _take_choices(self, choices: Any, chunk: dict[str, Any]) -> None:
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            raise BadMessage("a chunk of the stream does not hold one choice")
        choice: dict[str, Any] = choices[0]
        if choice.get("index", 0) not in (0, None):
            raise BadMessage("the stream holds more than one choice")
        if not self._started:
            self._start(chunk)
        delta = choice.get("delta")
        if type(delta) is dict:
            self._take_delta(delta)
        elif delta is not None:
            raise BadMessage("a delta of the stream is not an object")
        finish = choice.get("finish_reason")
        if finish is not None and finish != "":
            if type(finish) is not str or finish not in STOP_REASONS:
                raise BadMessage("the stream ended for a reason that is not known")
            self._finish = finish
            self._sequence = stop_sequence(choice)

    def _take_delta(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        # The usual delta, before any look at the rare ones.
        if type(content) is str and content and len(delta) <= 2 and (len(delta) == 1 or "role" in delta):
            self._tell("text", content)
            return
        for field in _WITHOUT_FORM:
            if delta.get(field):
                raise BadMessage(f"the stream holds {field}")
        self._take_reasoning(delta)
        for kind, text in text_parts(content):
            self._tell(kind, text)
        refusal = delta.get("refusal")
        if type(refusal) is str and refusal:
            self._refused = True
            self._tell("text", refusal)
        self._cited += citations(delta)
        if len(self._cited) > _MAX_CITATIONS:
            raise BadMessage("the stream holds too many citations")
        calls = delta.get("tool_calls")
        if calls:
            for call in self._calls.take(calls):
                self._tell_call(call)

    def _take_reasoning(self, delta: dict[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        text = thought if type(thought) is str else ""
        given = delta.get("thinking_blocks")
        blocks = [block for block in given if type(block) is dict] if type(given) is list else []
        if any(_text(block, "thinking") for block in blocks):
            text = ""  # said by the blocks, each for itself
        for block in blocks:
            data = block.get("data")
            if block.get("type") == "redacted_thinking" and type(data) is str:
                self._open("redacted_thinking", {"type": "redacted_thinking", "data": data}, b"")
                continue
            self._take_thinking(block, _text(block, "thinking") or text)
            text = ""
        if text:
            self._tell("thinking", text)

    def _take_thinking(self, block: dict[str, Any], text: str) -> None:
        """A piece of a thinking block, which may have no text but its signature."""
        index, signature = block.get("index"), _text(block, "signature")
        begins = type(index) is int and index != self._thought
        if begins:
            self._thought = index
        # Where blocks are not numbered, a second signature is of a second block.
        if begins or (signature and (self._block != "thinking" or (self._signature and not text))):
            self._open("thinking", _NO_THINKING, _THINKING_DELTA)
        if text:
            self._tell("thinking", text)
        if signature:
            self._signature = signature

    def _tell(self, kind: str, text: str) -> None:
        """Text of the kind `text` or `thinking`: a delta of the open block, or of a new one."""
        # A signature ends the thinking that it signs.
        if self._block != kind or (self._signature and kind == "thinking"):
            if kind == "text":
                self._open(kind, _NO_TEXT, _TEXT_DELTA)
            else:
                self._open(kind, _NO_THINKING, _THINKING_DELTA)
        self._out.append(self._prefix + _encode(text) + b"}}\n\n")

    def _tell_call(self, call: StreamedCall) -> None:
        """What is new of a tool call: its beginning, or a piece of its input."""
        if call.begins:
            self._has_calls = True
            block = {"type": "tool_use", "id": self._calls.ids.next(call.id), "name": call.name, "input": {}}
            self._open("tool_use", block, _INPUT_DELTA)
        elif self._block != "tool_use":
            raise BadMessage("the stream goes on with a tool call that had ended")
        if call.arguments:
            self._out.append(self._prefix + _encode(call.arguments) + b"}}\n\n")

    def _start(self, chunk: dict[str, Any]) -> None:
        self._started = True
        id_, model = chunk.get("id"), chunk.get("model")
        self._calls.ids = CallIds(id_)
        message: dict[str, Any] = {
            "id": id_ if type(id_) is str else "",
            "type": "message",
            "role": "assistant",
            "model": model if type(model) is str else "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The counts come with the end.
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._tell_event("message_start", {"message": message})

    def _open(self, kind: str, block: dict[str, Any], delta: bytes) -> None:
        if self._stop_told:
            raise BadMessage("the stream goes on behind its usage")
        self._close()
        self._index += 1
        self._block = kind
        self._prefix = b'%b"index":%d,%b' % (_DELTA, self._index, delta)
        self._tell_event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> None:
        if self._block is None:
            return
        if self._block == "thinking" and self._signature:
            self._tell_delta({"type": "signature_delta", "signature": self._signature})
            self._signature = ""
        elif self._block == "text" and self._cited:
            for citation in self._cited:
                self._tell_delta({"type": "citations_delta", "citation": citation})
            self._cited = []
        self._block = None
        self._tell_event("content_block_stop", {"index": self._index})

    def _tell_delta(self, delta: dict[str, Any]) -> None:
        self._tell_event("content_block_delta", {"index": self._index, "delta": delta})

    def _tell_event(self, name: str, fields: dict[str, Any]) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields})))

    def _tell_stop(self) -> None:
        """The end of the last block, the stop reason and the counts, once."""
        if self._stop_told or self._finish is None:
            return
        for call in self._calls.rest():
            self._tell_call(call)
        self._close()
        self._stop_told = True
        delta = stop(self._finish, self._sequence, calls=self._has_calls, refused=self._refused)
        self._tell_event("message_delta", {"delta": delta, "usage": message_usage(self._usage)})

    def _end(self) -> None:
        if self._finish is None:
            raise BadMessage("the stream ended without a finish_reason")
        self._tell_stop()
        self._over = True
        self._tell_event("message_stop", {})


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_MAX_CITATIONS = 4096
_WITHOUT_FORM = ("audio", "images", "function_call")

_NO_TEXT = {"type": "text", "text": ""}
_NO_THINKING = {"type": "thinking", "thinking": "", "signature": ""}
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta",'
_TEXT_DELTA = b'"delta":{"type":"text_delta","text":'
_THINKING_DELTA = b'"delta":{"type":"thinking_delta","thinking":'
_INPUT_DELTA = b'"delta":{"type":"input_json_delta","partial_json":'


def _text(block: dict[str, Any], field: str) -> str:
    value = block.get(field)
    return value if type(value) is str else ""
