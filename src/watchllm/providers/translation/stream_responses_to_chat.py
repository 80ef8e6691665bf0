"""A stream of a response's events as OpenAI's stream of a chat completion, event by event.

| event | what is told |
|---|---|
| `response.created`, `response.in_progress` | a chunk with the role, at the first of them |
| `response.output_text.delta` | a chunk with `content`, and the log probabilities that came with it |
| `response.refusal.delta` | a chunk with `refusal` |
| `response.reasoning_summary_text.delta`, `response.reasoning_text.delta` | a chunk with `reasoning_content` |
| `response.output_text.annotation.added` | a chunk with `annotations`, for a citation of a web page |
| `response.output_item.added` of a call | a chunk with the call's id and name |
| `response.function_call_arguments.delta`, `response.custom_tool_call_input.delta` | a chunk with a piece of the call |
| the `done` of any of these | what its deltas have not told: some providers send none |
| `response.completed`, `response.incomplete` | the `finish_reason`; a chunk with usage and no choice; `[DONE]` |
| `response.failed`, `error` | an error in OpenAI's form; nothing follows |

Everything else tells nothing: items of tools that run at the provider, states in between, types that nobody knows yet.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from watchllm.providers.dialect import Untranslatable
from watchllm.providers.translation import responses_output, responses_reasoning
from watchllm.providers.translation.answer_responses_to_chat import (
    chat_usage,
    finish_reason_of,
    head_of,
    nested_annotation,
    says_all,
)
from watchllm.wire.types import BadMessage

MAX_TEXTS = 4096
"""Texts of one answer: parts of messages, calls, pieces of reasoning."""

_MAX_MESSAGE = 4096


class Translator:
    """Translates one stream; 2 µs for a piece of text. An error in it, or its end, ends the translation.

    Reasoning that is told both as a summary and in full is told as it came first.
    """

    __slots__ = (
        "_calls",
        "_done",
        "_ended",
        "_failed",
        "_last",
        "_length",
        "_opening",
        "_texts",
        "_thought",
        "_thoughts",
        "_told_reasoning",
        "exact",
    )

    def __init__(self) -> None:
        self._opening = b""
        self._texts: dict[tuple[str, int, int], _Text] = {}
        """What has been told, by its kind, the number of the item, and that of the part in it (0 of a call)."""
        self._length = 0
        """Characters of content, in which citations name their places."""
        self._calls = 0
        self._thoughts = 0
        self._thought: tuple[str, int, int] | None = None
        self._told_reasoning: dict[int, str] = {}
        """How each item of reasoning is told: by its summary or its text."""
        self._done: set[str] = set()
        self._last = -1
        self._ended = False
        self._failed = False
        self.exact = True

    def feed(self, data: bytes) -> bytes:
        """The chunks for the data of one event, maybe none. Raises BadMessage for what is no event of a response."""
        if self._failed or data.startswith(b"[DONE]"):
            # Some providers end their streams as chats do; the response's own end was told before.
            return b""
        try:
            event = _decode(data)
            kind = event.get("type") if type(event) is dict else None
            if type(kind) is not str:
                raise BadMessage("an event of the stream is not an object with a type")
            self._check_order(event.get("sequence_number"))
            tell = _TELL.get(kind)
            return b"" if tell is None else tell(self, event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadMessage("an event of the stream is not JSON") from None
        except RecursionError:
            raise BadMessage("an event of the stream is nested too deep") from None
        except Untranslatable as reason:
            raise BadMessage(f"the answer cannot be told as a chat completion: {reason}") from None

    def finish(self) -> bytes:
        """Nothing: the response's own end tells the end, and without it the stream was cut."""
        return b""

    def _check_order(self, number: Any) -> None:
        if self._ended:
            raise BadMessage("an event of the stream came behind its end")
        # Not all vendors number their events.
        if type(number) is int:
            if number <= self._last:
                raise BadMessage("an event of the stream came twice or out of order")
            self._last = number

    # --- the frame ---------------------------------------------------------------------------------------------------

    def _begin(self, event: dict[str, Any]) -> bytes:
        response = event.get("response")
        if type(response) is not dict:
            raise BadMessage("an event of the stream lacks its response")
        if self._opening:
            return b""
        self._opening = b"data: " + _encode(head_of(response, "chat.completion.chunk"))[:-1] + b',"choices":['
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _end(self, event: dict[str, Any]) -> bytes:
        told = self._begin(event)
        response: dict[str, Any] = event["response"]
        output = response.get("output")
        items = output if type(output) is list else []
        if not self._texts:
            # Everything in the last event: so do providers that replay a stored answer.
            for number, item in enumerate(items):
                told += self._item(number, item)
        if items:
            self.exact = says_all(items)
        told += self._chunk({}, finish_reason_of(response, self._calls > 0))
        usage = chat_usage(response.get("usage"))
        if usage is not None:
            told += self._opening + b'],"usage":' + _encode(usage) + b"}\n\n"
        self._ended = True
        return told + b"data: [DONE]\n\n"

    def _fail(self, event: dict[str, Any]) -> bytes:
        response = event.get("response")
        error = response.get("error") if type(response) is dict else event.get("error")
        said = error if type(error) is dict else event
        told: dict[str, str | None] = {
            field: _as_text(said.get(field)) for field in ("message", "type", "param", "code")
        }
        if said is event or not told["type"]:
            told["type"] = "invalid_request_error" if told["code"] in _CLIENTS_FAULT else "server_error"
        told["message"] = (told["message"] or "The provider sent an error inside its stream.")[:_MAX_MESSAGE]
        self._failed = True
        return b"data: " + _encode({"error": told}) + b"\n\n"

    # --- what the model said -----------------------------------------------------------------------------------------

    def _take_said(self, event: dict[str, Any]) -> bytes:
        text = self._text("content", event)
        tokens = event.get("logprobs")
        return self._said(text, _said(event, "delta"), tokens if type(tokens) is list else ())

    def _said(self, text: "_Text", piece: str, tokens: Any = ()) -> bytes:
        self._length += len(piece)
        text.told += len(piece)
        told = responses_output.logprobs(tokens) if tokens else []
        return self._chunk({"content": piece}, logprobs=told) if piece or told else b""

    def _take_refused(self, event: dict[str, Any]) -> bytes:
        return self._refused(self._text("refusal", event), _said(event, "delta"))

    def _refused(self, text: "_Text", piece: str) -> bytes:
        text.told += len(piece)
        return self._chunk({"refusal": piece}) if piece else b""

    def _take_said_whole(self, event: dict[str, Any]) -> bytes:
        text = self._text("content", event)
        return self._said(text, text.rest(_said(event, "text")))

    def _take_refused_whole(self, event: dict[str, Any]) -> bytes:
        text = self._text("refusal", event)
        return self._refused(text, text.rest(_said(event, "refusal")))

    def _take_annotation(self, event: dict[str, Any]) -> bytes:
        return self._cite(self._text("content", event), event.get("annotation"))

    def _cite(self, text: "_Text", annotation: Any) -> bytes:
        if type(annotation) is not dict or annotation.get("type") != "url_citation":
            return b""
        text.cited += 1
        return self._chunk({"annotations": [nested_annotation(annotation, text.start)]})

    # --- what it thought ---------------------------------------------------------------------------------------------

    def _take_thought(self, event: dict[str, Any]) -> bytes:
        kind = "content" if "content_index" in event else "summary"
        item, part = _number(event, "output_index"), _number(event, f"{kind}_index")
        return self._think(kind, item, part, event, whole=event["type"].endswith(".done"))

    def _think(self, kind: str, item: int, part: int, holder: dict[str, Any], *, whole: bool) -> bytes:
        text = self._at(f"reasoning {kind}", item, part)
        piece = text.rest(_said(holder, "text")) if whole else _said(holder, "delta")
        if not piece or self._told_reasoning.setdefault(item, kind) != kind:
            return b""
        text.told += len(piece)
        before, self._thought = self._thought, (kind, item, part)
        gap = "" if before is None or before == self._thought else "\n\n"
        return self._chunk({"reasoning_content": gap + piece})

    # --- the tools that it called ------------------------------------------------------------------------------------

    def _take_call(self, event: dict[str, Any]) -> bytes:
        return self._call(self._known_call(event), _said(event, "delta"))

    def _take_call_whole(self, event: dict[str, Any]) -> bytes:
        text = self._known_call(event)
        return self._call(text, text.rest(_said(event, "input" if text.kind == "custom" else "arguments")))

    def _known_call(self, event: dict[str, Any]) -> "_Text":
        text = self._texts.get(("call", _number(event, "output_index"), 0))
        if text is None:
            raise BadMessage("a piece of a tool call that has not begun")
        return text

    def _call(self, text: "_Text", piece: str) -> bytes:
        if not piece:
            return b""
        text.told += len(piece)
        inner = {"input" if text.kind == "custom" else "arguments": piece}
        return self._chunk({"tool_calls": [{"index": text.start, text.kind: inner}]})

    def _begin_call(self, number: int, item: dict[str, Any], kind: str, field: str) -> bytes:
        text = self._at("call", number, 0)
        text.kind = kind
        text.start = self._calls
        self._calls += 1
        inner = {"name": _said(item, "name"), field: ""}
        call = {"index": text.start, "id": _said(item, "call_id"), "type": kind, kind: inner}
        return self._chunk({"tool_calls": [call]})

    # --- whole items -------------------------------------------------------------------------------------------------

    def _item_added(self, event: dict[str, Any]) -> bytes:
        item, number = event.get("item"), _number(event, "output_index")
        kind = item.get("type") if type(item) is dict else None
        # Whatever else an item holds when it begins is told by its deltas, or at its end.
        call = _CALLS.get(kind) if type(kind) is str else None
        if call is None or ("call", number, 0) in self._texts:
            return b""
        return self._begin_call(number, event["item"], *call)

    def _item_done(self, event: dict[str, Any]) -> bytes:
        number, item = _number(event, "output_index"), event.get("item")
        told = self._item(number, item)
        # Some providers leave the items out of the last event. A chat has one text, and one reasoning.
        kind = item["type"] if type(item) is dict else ""
        self.exact = self.exact and kind not in self._done and says_all([item])
        if kind in _SINGLE:
            self._done.add(kind)
        return told

    def _item(self, number: int, item: Any) -> bytes:
        """What has not been told of an item that is whole."""
        kind = item.get("type") if type(item) is dict else None
        if type(kind) is not str:
            raise BadMessage("an item of the stream is none")
        if kind == "message":
            parts = enumerate(_objects(item, "content"))
            return b"".join([self._part(number, at, part) for at, part in parts])
        if kind == "reasoning":
            return self._reasoned(number, item)
        call = _CALLS.get(kind)
        if call is None:
            return b""
        text = self._texts.get(("call", number, 0))
        told = self._begin_call(number, item, *call) if text is None else b""
        text = self._texts["call", number, 0]
        return told + self._call(text, text.rest(_said(item, call[1])))

    def _part(self, number: int, at: int, part: dict[str, Any]) -> bytes:
        if part.get("type") == "refusal":
            text = self._at("refusal", number, at)
            return self._refused(text, text.rest(_said(part, "refusal")))
        if part.get("type") != "output_text":
            raise Untranslatable("a message has a part that is neither text nor refusal")
        text = self._at("content", number, at)
        rest = text.rest(_said(part, "text"))
        told = self._said(text, rest, (part.get("logprobs") or ()) if rest and rest == part["text"] else ())
        web = [one for one in _objects(part, "annotations") if one.get("type") == "url_citation"]
        return told + b"".join([self._cite(text, one) for one in web[text.cited :]])

    def _reasoned(self, number: int, item: dict[str, Any]) -> bytes:
        told = [
            self._think(kind, number, at, part, whole=True)
            for kind in ("content", "summary")
            for at, part in enumerate(_objects(item, kind))
        ]
        sealed = item.get("encrypted_content")
        blocks = responses_reasoning.unpack(sealed) if type(sealed) is str else None
        for block in blocks or ():
            told.append(self._chunk({"thinking_blocks": [{"index": self._thoughts} | block]}))
            self._thoughts += 1
        return b"".join(told)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _text(self, kind: str, event: dict[str, Any]) -> "_Text":
        return self._at(kind, _number(event, "output_index"), _number(event, "content_index"))

    def _at(self, kind: str, item: int, part: int) -> "_Text":
        place = (kind, item, part)
        text = self._texts.get(place)
        if text is None:
            if len(self._texts) >= MAX_TEXTS:
                raise BadMessage("the stream has too many parts")
            text = self._texts[place] = _Text(kind, self._length)
        return text

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None) -> bytes:
        if not self._opening:
            raise BadMessage("the stream does not begin with a response")
        # As OpenAI writes it for those who ask for usage; for all others the gateway cuts the last member off.
        return b'%b{"index":0,"delta":%b,"logprobs":%b,"finish_reason":%b}],"usage":null}\n\n' % (
            self._opening,
            _encode(delta),
            _encode({"content": logprobs, "refusal": None}) if logprobs else b"null",
            b"null" if finish_reason is None else b'"%b"' % finish_reason.encode(),
        )


class _Text:
    """A text under way. `told` counts its characters so far, `cited` its citations; `start` is the place of a part in
    the whole content, or of a call among the calls."""

    __slots__ = ("cited", "kind", "start", "told")

    def __init__(self, kind: str, start: int) -> None:
        self.kind = kind
        self.start = start
        self.told = 0
        self.cited = 0

    def rest(self, whole: str) -> str:
        """What has not been told of a text that is `whole`."""
        return whole[self.told :]


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# The kind of a call in a chat, and the name of its text, by the item's type.
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_SINGLE = ("message", "reasoning")
# Codes of errors that the same request would meet again.
_CLIENTS_FAULT = frozenset(
    ("invalid_prompt", "invalid_image", "invalid_image_format", "invalid_image_url", "image_too_large")
)

_TELL: dict[str, Callable[[Translator, dict[str, Any]], bytes]] = {
    "response.created": Translator._begin,
    "response.queued": Translator._begin,
    "response.in_progress": Translator._begin,
    "response.output_text.delta": Translator._take_said,
    "response.output_text.done": Translator._take_said_whole,
    "response.output_text.annotation.added": Translator._take_annotation,
    "response.refusal.delta": Translator._take_refused,
    "response.refusal.done": Translator._take_refused_whole,
    "response.reasoning_text.delta": Translator._take_thought,
    "response.reasoning_text.done": Translator._take_thought,
    "response.reasoning_summary_text.delta": Translator._take_thought,
    "response.reasoning_summary_text.done": Translator._take_thought,
    "response.function_call_arguments.delta": Translator._take_call,
    "response.function_call_arguments.done": Translator._take_call_whole,
    "response.custom_tool_call_input.delta": Translator._take_call,
    "response.custom_tool_call_input.done": Translator._take_call_whole,
    "response.output_item.added": Translator._item_added,
    "response.output_item.done": Translator._item_done,
    "response.completed": Translator._end,
    "response.incomplete": Translator._end,
    "response.failed": Translator._fail,
    "error": Translator._fail,
}


def _number(event: dict[str, Any], field: str) -> int:
    value = event.get(field)
    if type(value) is not int:
        raise BadMessage(f"an event of the stream lacks its {field}")
    return value


def _said(holder: dict[str, Any], field: str) -> str:
    value = holder.get(field)
    if type(value) is not str:
        raise BadMessage(f"an event of the stream lacks its {field}")
    return value


def _objects(holder: dict[str, Any], field: str) -> list[dict[str, Any]]:
    value = holder.get(field) or []
    if type(value) is not list or not all(type(one) is dict for one in value):
        raise BadMessage(f"an item of the stream has a malformed {field}")
    return value


def _as_text(value: Any) -> str | None:
    """Codes are numbers with some providers."""
    return value if type(value) is str else str(value) if type(value) is int else None
