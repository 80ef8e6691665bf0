"""A response as a chat completion: what its items say, in one message."""

from typing import Any

import msgspec

from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.translation import responses_reasoning
from watchllm.providers.translation.responses_fields import CHAT_TIERS
from watchllm.providers.translation.responses_form import count

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_MAX_MESSAGE = 1000


def translate(body: bytes) -> TranslatedAnswer:
    """`exact` is False where the response has more than one text, items of tools that run at the provider, or sealed
    reasoning. Raises Untranslatable for a response that failed, or is not at its end."""
    try:
        response = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Untranslatable("it is not JSON") from None
    if type(response) is not dict:
        raise Untranslatable("it is no object")
    if response.get("error"):
        raise Untranslatable(f"the response failed: {_reason_told(response['error'])}")
    output = response.get("output")
    if type(output) is not list:
        raise Untranslatable("it has no output")
    message = _Message()
    for item in output:
        message.take(item)
    choice = {
        "index": 0,
        "message": message.written(),
        "logprobs": {"content": message.logprobs, "refusal": None} if message.logprobs else None,
        "finish_reason": finish_reason_of(response, bool(message.calls)),
    }
    chat = head_of(response, "chat.completion") | {"choices": [choice]}
    usage = chat_usage(response.get("usage"))
    if usage is not None:
        chat["usage"] = usage
    try:
        return TranslatedAnswer(_encode(chat), message.exact)
    except RecursionError:
        raise Untranslatable("it is nested too deep") from None


def head_of(response: dict[str, Any], kind: str) -> dict[str, Any]:
    """What a chat completion, or each chunk of one, tells beside its choices; `kind` is its `object`."""
    response_id, created, model = response.get("id"), response.get("created_at"), response.get("model")
    head: dict[str, Any] = {
        "id": "chatcmpl-" + (response_id.removeprefix("resp_") if type(response_id) is str else ""),
        "object": kind,
        "created": int(created) if type(created) is int or type(created) is float else 0,
        "model": model if type(model) is str else "",
    }
    tier = response.get("service_tier")
    if type(tier) is str and tier in CHAT_TIERS:
        head["service_tier"] = tier
    return head


class _Message:
    """The one message of a chat completion, of the items so far."""

    def __init__(self) -> None:
        self.exact = True
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []
        self.reasoning: list[str] = []
        self.blocks: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []

    def take(self, item: Any) -> None:
        kind = item.get("type") if type(item) is dict else None
        if kind == "message":
            for part in _objects(item.get("content"), "a message"):
                self._take_part(part)
        elif kind == "reasoning":
            self._take_reasoning(item)
        elif kind in ("function_call", "custom_tool_call"):
            self._take_call(item, "custom" if kind == "custom_tool_call" else "function")
        elif type(kind) is str:
            self.exact = False
        else:
            raise Untranslatable("its output has something that is no item")

    def written(self) -> dict[str, Any]:
        if len(self.texts) > 1 or len(self.refusals) > 1:
            self.exact = False
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.texts) if self.texts else None,
            "refusal": "".join(self.refusals) if self.refusals else None,
            "annotations": self.annotations,
        }
        if self.reasoning:
            message["reasoning_content"] = "\n\n".join(self.reasoning)
        if self.blocks:
            message["thinking_blocks"] = self.blocks
        if self.calls:
            message["tool_calls"] = self.calls
        return message

    def _take_part(self, part: dict[str, Any]) -> None:
        if part.get("type") == "refusal":
            self.refusals.append(_text(part, "refusal"))
            return
        if part.get("type") != "output_text":
            raise Untranslatable("a message has a part that is neither text nor refusal")
        offset = sum(map(len, self.texts))
        self.texts.append(_text(part, "text"))
        if part.get("logprobs"):
            self.logprobs += _objects(part["logprobs"], "log probabilities")
        for annotation in _objects(part.get("annotations") or [], "annotations"):
            if annotation.get("type") == "url_citation":
                self.annotations.append(nested_annotation(annotation, offset))
            else:
                self.exact = False

    def _take_reasoning(self, item: dict[str, Any]) -> None:
        summary, content = (_objects(item.get(field) or [], "reasoning") for field in ("summary", "content"))
        self.reasoning += [text for part in content or summary if (text := _text(part, "text"))]
        if len(self.reasoning) > 1 or (content and summary):
            self.exact = False
        sealed = item.get("encrypted_content")
        if type(sealed) is str and sealed:
            blocks = responses_reasoning.unpack(sealed)
            self.blocks += blocks or []
            self.exact = self.exact and blocks is not None

    def _take_call(self, item: dict[str, Any], kind: str) -> None:
        field = "input" if kind == "custom" else "arguments"
        called = {"name": _text(item, "name"), field: _text(item, field)}
        self.calls.append({"id": _text(item, "call_id"), "type": kind, kind: called})


def nested_annotation(annotation: dict[str, Any], offset: int) -> dict[str, Any]:
    """A citation in a chat's form; its place counts from the beginning of the whole text."""
    citation: dict[str, Any] = {field: annotation.get(field) for field in ("url", "title", "start_index", "end_index")}
    for field in ("start_index", "end_index"):
        if offset and type(citation[field]) is int:
            citation[field] += offset
    return {"type": "url_citation", "url_citation": citation}


def finish_reason_of(response: dict[str, Any], has_calls: bool) -> str:
    """A chat's reason for the end of `response`. Raises Untranslatable for one that is not at its end."""
    status = response.get("status")
    if status == "completed":
        return "tool_calls" if has_calls else "stop"
    details = response.get("incomplete_details")
    reason = details.get("reason") if type(details) is dict else None
    if status == "incomplete" and reason in ("max_output_tokens", "content_filter"):
        return "length" if reason == "max_output_tokens" else "content_filter"
    raise Untranslatable("it did not come to its end")


def chat_usage(reported: Any) -> dict[str, Any] | None:
    """A response's `usage` as a chat tells it; None where it has none."""
    if type(reported) is not dict:
        return None
    inputs, outputs = count(reported, "input_tokens"), count(reported, "output_tokens")
    of_input, of_output = reported.get("input_tokens_details"), reported.get("output_tokens_details")
    return {
        "prompt_tokens": inputs,
        "completion_tokens": outputs,
        "total_tokens": inputs + outputs,
        "prompt_tokens_details": {
            "cached_tokens": count(of_input, "cached_tokens"),
            "cache_write_tokens": count(of_input, "cache_write_tokens"),
        },
        "completion_tokens_details": {"reasoning_tokens": count(of_output, "reasoning_tokens")},
    }


def _reason_told(error: Any) -> str:
    """The provider's own words for why a response failed."""
    message = error.get("message") if type(error) is dict else error
    return message[:_MAX_MESSAGE].rstrip(".") if type(message) is str and message else "it gives no reason"


def _objects(given: Any, what: str) -> list[dict[str, Any]]:
    if type(given) is not list or not all(type(item) is dict for item in given):
        raise Untranslatable(f"{what} in it is malformed")
    return given


def _text(holder: dict[str, Any], field: str) -> str:
    if type(holder.get(field)) is not str:
        raise Untranslatable(f"an item in it has no {field}")
    return str(holder[field])
