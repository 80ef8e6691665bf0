"""A chat completion as a response: reasoning, then what was said, then the calls, each an item of the output."""

from typing import Any

import msgspec

from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.translation import responses_form, responses_output

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
    responses_form.mark_incomplete(response)
    response["usage"] = responses_form.usage(chat.get("usage"))
    try:
        return TranslatedAnswer(_encode(response), output.exact and reason in USUAL_REASONS)
    except RecursionError:
        raise Untranslatable("it is nested too deep") from None


USUAL_REASONS = ("stop", "tool_calls", "length", "content_filter")
# Said by the model or about it, in forms of vendors that a response has no place for.
UNTOLD = ("citations", "reasoning_details")


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
        if any(message.get(field) for field in UNTOLD):
            self.exact = False
        self._take_reasoning(message)
        self._take_said(message, logprobs)
        calls = message.get("tool_calls")
        if calls is not None and type(calls) is not list:
            raise Untranslatable("its tool calls are no list")
        for call in calls or ():
            self._take_call(call)

    def _take_reasoning(self, message: dict[str, Any]) -> None:
        text = message.get("reasoning_content") or message.get("reasoning")
        written = text if type(text) is str else ""
        blocks = responses_output.thinking_blocks(message.get("thinking_blocks"))
        if written or blocks:
            self.items.append(responses_output.reasoning_item(self.ids.item("rs", len(self.items)), written, blocks))

    def _take_said(self, message: dict[str, Any], logprobs: Any) -> None:
        parts = []
        text = _text_of(message.get("content"))
        given = message.get("annotations") or []
        annotations = responses_output.flat_annotations(given)
        if type(given) is not list or len(annotations) != len(given) or (given and not text):
            self.exact = False
        if text:
            tokens = logprobs.get("content") if type(logprobs) is dict else None
            told = responses_output.logprobs(tokens)
            if len(told) != len(tokens if type(tokens) is list else ()):
                self.exact = False
            parts.append(responses_output.text_part(text, annotations, told))
        refusal = message.get("refusal")
        if type(refusal) is str and refusal:
            parts.append({"type": "refusal", "refusal": refusal})
        if parts:
            self.items.append(responses_output.message_item(self.ids.item("msg", len(self.items)), parts))

    def _take_call(self, call: Any) -> None:
        kind = responses_output.call_kind(call) if type(call) is dict else responses_output.FUNCTION
        inner = call.get(kind.holder) if type(call) is dict else None
        if type(inner) is not dict or type(inner.get("name")) is not str:
            raise Untranslatable("it has a malformed tool call")
        item_id = self.ids.item(kind.prefix, len(self.items))
        written = responses_output.written_text(inner.get(kind.field))
        self.items.append(responses_output.call_item(kind, item_id, call.get("id"), inner["name"], written))


def _text_of(content: Any) -> str:
    if content is None or type(content) is str:
        return content or ""
    if type(content) is not list:
        raise Untranslatable("its content is neither text nor parts")
    texts = [part.get("text") if type(part) is dict else None for part in content]
    if any(type(text) is not str for text in texts):
        raise Untranslatable("its content has parts other than text")
    return "".join(map(str, texts))
