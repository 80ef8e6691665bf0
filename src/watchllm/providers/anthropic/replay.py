"""Tells a stored message as a stream, in the events that Anthropic would have sent, so that clients cannot tell.

The message, still empty; each content block from its beginning to its end, its text in a few pieces, its citations one
by one, a tool's input as pieces of JSON; how it ended, with the counts of its output; that this was all. Joining the
events by the rules of `assemble` gives the message again.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from watchllm.providers.pieces import pieces

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def replay(body: bytes, *, include_usage: bool = True) -> bytes:
    """The whole stream for a message that `storable.judge` let pass. Anthropic tells usage with every stream, so
    `include_usage` changes nothing here."""
    message: dict[str, Any] = _decode(body)
    content: list[dict[str, Any]] = message["content"]
    usage = message.get("usage")
    reported: dict[str, Any] = usage if type(usage) is dict else {}
    events = [_event("message_start", {"message": _beginning(message, reported)})]
    if not content:
        events.append(_PING)
    for index, block in enumerate(content):
        start, deltas = _told(block)
        events.append(_event("content_block_start", {"index": index, "content_block": start}))
        if index == 0:
            events.append(_PING)
        events.extend(_event("content_block_delta", {"index": index, "delta": delta}) for delta in deltas)
        events.append(_event("content_block_stop", {"index": index}))
    events.append(_event("message_delta", _ending(message, reported)))
    events.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    return b"".join(events)


_PING = b'event: ping\ndata: {"type":"ping"}\n\n'

# The counts that a stream tells at its end; those of the input are told at its beginning too.
_OUTPUT_COUNTS = ("output_tokens", "output_tokens_details", "server_tool_use")
_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_END = ("stop_reason", "stop_sequence", "stop_details", "container")


def _event(kind: str, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **members}))


def _beginning(message: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    counts = {field: value for field, value in usage.items() if field not in _OUTPUT_COUNTS or value is None}
    if type(usage.get("output_tokens")) is int:
        counts["output_tokens"] = min(1, usage["output_tokens"])
    ends = {field: None for field in _END if field in message}
    return message | {"content": []} | ends | {"usage": counts or {"input_tokens": 0, "output_tokens": 0}}


def _ending(message: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    # Of containers only one that there is, is told.
    told = [field for field in _END if field in message and (field != "container" or message[field] is not None)]
    delta = {field: message[field] for field in told}
    counts = {field: usage[field] for field in (*_INPUT_COUNTS, *_OUTPUT_COUNTS) if usage.get(field) is not None}
    # Clients count on there being some, so a message without is told as one that took none.
    return {"delta": delta, "usage": counts or {"output_tokens": 0}}


def _told(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins, and what comes after that. One that is not of the usual form begins with all that it is."""
    kind = block.get("type")
    if kind == "text" and type(block.get("text")) is str:
        citations = block.get("citations")
        if citations is None or type(citations) is list:
            return _told_text(block, citations)
    elif kind == "thinking" and type(block.get("thinking")) is str and type(block.get("signature")) is str:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        if block["signature"]:
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return block | {"thinking": "", "signature": ""}, deltas
    elif kind in ("tool_use", "server_tool_use") and type(block.get("input")) is dict:
        return block | {"input": {}}, [
            {"type": "input_json_delta", "partial_json": piece} for piece in _json_pieces(block["input"])
        ]
    return block, []


def _told_text(block: dict[str, Any], citations: list[Any] | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    begun = block | {"text": ""}
    if citations:
        begun["citations"] = []
        deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
    return begun, deltas


def _json_pieces(value: dict[str, Any]) -> Iterator[str]:
    # Anthropic begins every input with an empty piece; an empty input has no other.
    yield ""
    if value:
        yield from pieces(_encode(value).decode())
