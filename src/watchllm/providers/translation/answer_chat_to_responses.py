"""A chat completion as a response: reasoning, then what was said, then the calls, each an item of the output."""

from typing import Any

import msgspec

from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.translation import responses_form, responses_reasoning

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def translate(body: bytes, request: dict[str, Any]) -> TranslatedAnswer:
    """The response to the Responses request `request`, whose parameters it echoes.

    `exact` means that all the model said is there; a vendor's own notes beside it (`system_fingerprint`…) are not told.
    Raises Untranslatable.
    """
    try:
        chat = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Untranslatable("it is not JSON") from None
    if type(chat) is not dict or chat.get("error"):
        raise Untranslatable("it is an error, or no object")
    choices = chat.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        raise Untranslatable("it has not one choice")
    (choice,) = choices
    message = choice.get("message")
    if type(message) is not dict:
        raise Untranslatable("it has no message")
    reason = choice.get("finish_reason")
    output = _Output(responses_form.Ids(chat.get("id"), body))
    output.take(message, choice.get("logprobs"))
    response = responses_form.begun(request, output.ids, chat) | responses_form.ending(reason)
    response["output"] = output.items
    response["usage"] = responses_form.usage(chat.get("usage"))
    try:
        return TranslatedAnswer(_encode(response), output.exact and reason in _USUAL_REASONS)
    except RecursionError:
        raise Untranslatable("it is nested too deep") from None


_USUAL_REASONS = ("stop", "tool_calls", "length", "content_filter")
# Said by the model or about it, in forms of vendors that a response has no place for.
_UNTOLD = ("citations", "reasoning_details")


class _Output:
    """The items of the output, and whether they say all that the message does."""

    def __init__(self, ids: responses_form.Ids) -> None:
        self.ids = ids
        self.items: list[dict[str, Any]] = []
        self.exact = True

    def take(self, message: dict[str, Any], logprobs: Any) -> None:
        for field in ("audio", "images", "function_call"):
            if message.get(field):
                raise Untranslatable(f"it has {field}")
        if any(message.get(field) for field in _UNTOLD):
            self.exact = False
        self._take_reasoning(message)
        self._take_said(message, logprobs)
        calls = message.get("tool_calls")
        if calls is not None and type(calls) is not list:
            raise Untranslatable("its tool calls are no list")
        for call in calls or ():
            self.items.append(call_item(call, self.ids, len(self.items)))

    def _take_reasoning(self, message: dict[str, Any]) -> None:
        text = message.get("reasoning_content") or message.get("reasoning") or ""
        blocks = message.get("thinking_blocks")
        if type(text) is str and (text or is_blocks(blocks)):
            self.items.append(reasoning_item(self.ids.item("rs", len(self.items)), text, blocks))

    def _take_said(self, message: dict[str, Any], logprobs: Any) -> None:
        parts = []
        text = _text_of(message.get("content"))
        given = message.get("annotations") or []
        annotations = responses_form.flat_annotations(given)
        if type(given) is not list or len(annotations) != len(given) or (given and not text):
            self.exact = False
        if text:
            part = {"type": "output_text", "text": text, "annotations": annotations}
            tokens = logprobs.get("content") if type(logprobs) is dict else None
            parts.append(part | {"logprobs": responses_form.logprobs(tokens) if tokens else []})
        refusal = message.get("refusal")
        if type(refusal) is str and refusal:
            parts.append({"type": "refusal", "refusal": refusal})
        if parts:
            item_id = self.ids.item("msg", len(self.items))
            self.items.append(message_item(item_id, parts))


def message_item(item_id: str, parts: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    """What the model said, as an item."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def reasoning_item(item_id: str, text: str, blocks: Any) -> dict[str, Any]:
    """Reasoning as an item; `blocks` is the message's `thinking_blocks`."""
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": []}
    if text:
        item["summary"] = [{"type": "summary_text", "text": text}]
    if is_blocks(blocks):
        item["encrypted_content"] = responses_reasoning.pack(blocks)
    return item


def is_blocks(blocks: Any) -> bool:
    """Whether `blocks` are thinking blocks that the client has to keep."""
    return type(blocks) is list and bool(blocks) and all(type(block) is dict for block in blocks)


def call_item(call: Any, ids: responses_form.Ids, output_index: int) -> dict[str, Any]:
    """A tool call as an item.

    Raises Untranslatable for what is none.
    """
    kind = "custom" if type(call) is dict and type(call.get("custom")) is dict else "function"
    inner = call.get(kind) if type(call) is dict else None
    if type(inner) is not dict or type(inner.get("name")) is not str:
        raise Untranslatable("it has a malformed tool call")
    call_id = call.get("id")
    prefix, item_kind, field = CALLS[kind]
    item_id = ids.item(prefix, output_index)
    # A vendor that names no calls has them told apart by our own ids.
    called = {"call_id": call_id if type(call_id) is str and call_id else f"call_{item_id}", "name": inner["name"]}
    written = inner.get(field)
    if type(written) is not str:
        # Some vendors send arguments as the object itself, or none at all.
        written = "" if written is None else _encode(written).decode()
    return {"id": item_id, "type": item_kind, "status": "completed"} | called | {field: written}


CALLS = {"function": ("fc", "function_call", "arguments"), "custom": ("ctc", "custom_tool_call", "input")}
"""Prefix of the id, item type and field of the text, by the kind of a tool call in a chat."""


def _text_of(content: Any) -> str:
    if content is None or type(content) is str:
        return content or ""
    if type(content) is not list:
        raise Untranslatable("its content is neither text nor parts")
    texts = [part.get("text") if type(part) is dict else None for part in content]
    if any(type(text) is not str for text in texts):
        raise Untranslatable("its content has parts other than text")
    return "".join(map(str, texts))
