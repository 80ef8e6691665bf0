"""The items of a response's output that are made of a chat completion's message."""

from typing import Any

import msgspec

from watchllm.providers.translation import responses_reasoning

_encode = msgspec.json.Encoder().encode


class CallKind:
    """What a kind of tool call is called in both dialects: `holder` is the object in the chat's call, `field` the text
    in it and in the item, `prefix` that of the item's id."""

    __slots__ = ("field", "holder", "item_type", "prefix")

    def __init__(self, holder: str, item_type: str, field: str, prefix: str) -> None:
        self.holder = holder
        self.item_type = item_type
        self.field = field
        self.prefix = prefix


FUNCTION = CallKind("function", "function_call", "arguments", "fc")
CUSTOM = CallKind("custom", "custom_tool_call", "input", "ctc")


def call_kind(call: dict[str, Any]) -> CallKind:
    """The kind of a chat's tool call, or of a piece of one."""
    return CUSTOM if type(call.get("custom")) is dict else FUNCTION


def message_item(item_id: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model said."""
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": parts}


def text_part(text: str, annotations: list[Any], logprobs: list[Any]) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs}


def reasoning_item(item_id: str, text: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model thought; `blocks` are the message's `thinking_blocks`, which the client has to keep."""
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": []}
    if text:
        item["summary"] = [{"type": "summary_text", "text": text}]
    if blocks:
        item["encrypted_content"] = responses_reasoning.pack(blocks)
    return item


def call_item(kind: CallKind, item_id: str, call_id: Any, name: str, written: str) -> dict[str, Any]:
    """A call of a tool. A vendor that gives calls no ids has them told apart by the items' own."""
    known = call_id if type(call_id) is str and call_id else f"call_{item_id}"
    item = {"id": item_id, "type": kind.item_type, "status": "completed", "call_id": known, "name": name}
    return item | {kind.field: written}


def thinking_blocks(given: Any) -> list[dict[str, Any]]:
    """The blocks in a message or delta; anything that is none is no reasoning of a kind that is known here."""
    return [block for block in given if type(block) is dict] if type(given) is list else []


def written_text(value: Any) -> str:
    """The arguments of a call as text: some vendors send the object itself, or nothing at all."""
    if type(value) is str:
        return value
    return "" if value is None else _encode(value).decode()


def flat_annotations(given: Any) -> list[dict[str, Any]]:
    """The citations of web pages in a chat's `annotations`; other kinds have no form there."""
    found = []
    for annotation in given if type(given) is list else ():
        citation = annotation.get("url_citation") if type(annotation) is dict else None
        if type(citation) is dict and type(citation.get("url")) is str:
            title, start, end = citation.get("title"), citation.get("start_index"), citation.get("end_index")
            found.append(
                {
                    "type": "url_citation",
                    "url": citation["url"],
                    "title": title if type(title) is str else "",
                    "start_index": start if type(start) is int else 0,
                    "end_index": end if type(end) is int else 0,
                }
            )
    return found


def logprobs(tokens: Any) -> list[dict[str, Any]]:
    """The tokens of a chat's `logprobs.content`; a token without bytes gets those of its text. What is none is left
    out: no answer is lost for it."""
    told = []
    for token in tokens if type(tokens) is list else ():
        read = _token(token)
        if read is not None:
            tops = token.get("top_logprobs")
            others = map(_token, tops if type(tops) is list else ())
            told.append(read | {"top_logprobs": [other for other in others if other is not None]})
    return told


def _token(token: Any) -> dict[str, Any] | None:
    text = token.get("token") if type(token) is dict else None
    logprob = token.get("logprob") if type(token) is dict else None
    if type(text) is not str or (type(logprob) is not float and type(logprob) is not int):
        return None
    held = token.get("bytes")
    return {"token": text, "bytes": held if type(held) is list else list(text.encode()), "logprob": logprob}
