"""An Anthropic message as a chat completion."""

from typing import Any

import msgspec

from watchllm.providers.anthropic.usage import token_usage
from watchllm.providers.dialect import TranslatedAnswer, Untranslatable

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# Which sequence it was, and that it was the window's end, is not told by the others.
LOSSY_REASONS = frozenset(("stop_sequence", "model_context_window_exceeded"))
BESIDE_CONTENT = ("stop_details", "container", "diagnostics")
"""What else of a message a chat does not tell."""
_TIERS = {"standard": "default", "priority": "priority"}


def translate(body: bytes, *, created: int = 0) -> TranslatedAnswer:
    """The chat completion that says what the message in `body` says; 5 µs for a short one.

    `created` is the time that a completion tells and a message does not, in Unix seconds. Raises Untranslatable for an
    error, for what is no message, for a turn that was only paused, and for content that chat has no form for.
    """
    try:
        message = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Untranslatable("not JSON") from None
    if type(message) is not dict or message.get("type") != "message" or type(message.get("content")) is not list:
        raise Untranslatable("not a message")
    reason = message.get("stop_reason")
    reading = _Reading()
    for block in message["content"]:
        reading.take(block)
    if any(message.get(field) is not None for field in BESIDE_CONTENT):
        reading.exact = False
    if reason in LOSSY_REASONS if type(reason) is str else True:
        reading.exact = False
    finish_reason = finish_reason_of(reason)
    said = reading.message(explanation_of(message.get("stop_details")))
    completion: dict[str, Any] = {
        "id": _text(message.get("id")),
        "object": "chat.completion",
        "created": created,
        "model": _text(message.get("model")),
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish_reason}],
    }
    usage = chat_usage(message.get("usage"))
    if usage is not None:
        completion["usage"] = usage
    tier = service_tier(message.get("usage"))
    if tier is not None:
        completion["service_tier"] = tier
    try:
        return TranslatedAnswer(_encode(completion), reading.exact)
    except RecursionError:
        raise Untranslatable("nested too deep") from None


def finish_reason_of(stop_reason: Any) -> str:
    """The `finish_reason` of a `stop_reason`. Raises Untranslatable where there is none."""
    reason = FINISH_REASONS.get(stop_reason) if type(stop_reason) is str else None
    if reason is None:
        raise Untranslatable(f"stop_reason {str(stop_reason)[:40]}")
    return reason


def chat_usage(reported: Any) -> dict[str, Any] | None:
    """A `usage` object as chat tells it: the prompt is all input, cached input included. None = no counts."""
    usage = token_usage(reported)
    if usage is None:
        return None
    told: dict[str, Any] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write},
    }
    if reported.get("output_tokens_details") is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return told


def service_tier(reported: Any) -> str | None:
    """OpenAI's name of the tier that a `usage` object tells."""
    tier = reported.get("service_tier") if type(reported) is dict else None
    return _TIERS.get(tier) if type(tier) is str else None


def explanation_of(stop_details: Any) -> str | None:
    """Why the model was stopped, in words, where Anthropic has some."""
    said = stop_details.get("explanation") if type(stop_details) is dict else None
    return said if type(said) is str else None


def annotations_of(citations: list[Any], start: int, end: int) -> list[dict[str, Any]]:
    """The citations of web pages as chat tells them: of the text from `start` to `end`, in characters."""
    annotations = []
    for citation in citations:
        if is_of_url(citation):
            cited = {
                "start_index": start,
                "end_index": end,
                "title": _text(citation.get("title")),
                "url": citation["url"],
            }
            annotations.append({"type": "url_citation", "url_citation": cited})
    return annotations


def is_of_url(citation: Any) -> bool:
    """Whether chat has a form for a citation."""
    return type(citation) is dict and type(citation.get("url")) is str


class _Reading:
    """The blocks of a message, by what chat tells apart."""

    def __init__(self) -> None:
        self.exact = True
        self._texts: list[str] = []
        self._length = 0
        self._calls: list[dict[str, Any]] = []
        self._thoughts: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._citations: list[Any] = []

    def take(self, block: Any) -> None:
        kind = block.get("type") if type(block) is dict else None
        if kind == "text":
            self._take_text(block)
        elif kind == "tool_use":
            self._calls.append(_call(block))
        elif kind == "thinking" or kind == "redacted_thinking":
            # Thoughts are told before all else; those between calls lose their place.
            if self._texts or self._calls:
                self.exact = False
            self._thoughts.append(_thought(block, kind))
        else:
            raise Untranslatable(f"content of the type {str(kind)[:40]}")

    def message(self, refusal: str | None) -> dict[str, Any]:
        content = "".join(self._texts)
        nothing = not self._texts and (self._calls or refusal is not None)
        message: dict[str, Any] = {"role": "assistant", "content": None if nothing else content, "refusal": refusal}
        thinking = "".join([thought.get("thinking", "") for thought in self._thoughts])
        if thinking:
            message["reasoning_content"] = thinking
        lists = {
            "thinking_blocks": self._thoughts,
            "tool_calls": self._calls,
            "annotations": self._annotations,
            "citations": self._citations,
        }
        return message | {field: value for field, value in lists.items() if value}

    def _take_text(self, block: dict[str, Any]) -> None:
        text = _said(block, "text")
        # Chat has one text, before all calls.
        if self._texts or self._calls:
            self.exact = False
        self._texts.append(text)
        start, self._length = self._length, self._length + len(text)
        citations = block.get("citations")
        if type(citations) is list and citations:
            self.exact = False
            self._annotations += annotations_of(citations, start, self._length)
            self._citations += [citation for citation in citations if not is_of_url(citation)]


def _call(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("input")
    if type(given) is not dict:
        raise Untranslatable("a tool's input is not an object")
    try:
        arguments = _encode(given).decode()
    except RecursionError:
        raise Untranslatable("nested too deep") from None
    function = {"name": _said(block, "name"), "arguments": arguments}
    return {"id": _said(block, "id"), "type": "function", "function": function}


def _thought(block: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "redacted_thinking":
        return {"type": kind, "data": _said(block, "data")}
    return {"type": kind, "thinking": _said(block, "thinking"), "signature": _text(block.get("signature"))}


def _said(block: dict[str, Any], field: str) -> str:
    value = block.get(field)
    if type(value) is not str:
        raise Untranslatable(f"a content block without its {field}")
    return value


def _text(value: Any) -> str:
    return value if type(value) is str else ""
