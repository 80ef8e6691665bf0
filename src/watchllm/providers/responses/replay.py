"""Tells a stored response as a stream, in the events that OpenAI would have sent, so that clients cannot tell."""

from typing import Any

import msgspec

from watchllm.providers.pieces import pieces, pieces_with_tokens
from watchllm.providers.responses.events import (
    ARGUMENTS,
    INPUT,
    REASONING,
    REFUSAL,
    SUMMARY,
    TEXT,
    EventWriter,
    TextKind,
    TextWriter,
)

_decode = msgspec.json.Decoder().decode


def replay(body: bytes, *, include_usage: bool) -> bytes:
    """The whole stream for a response that `storable.judge` let pass. A stream of this dialect always tells its usage:
    `include_usage` means nothing here."""
    response: dict[str, Any] = _decode(body)
    events = EventWriter()
    told = [events.begun(begun(response))]
    for index, item in enumerate(response["output"]):
        told += _item(events, index, item)
    told.append(events.ended(response))
    return b"".join(told)


def begun(response: dict[str, Any]) -> dict[str, Any]:
    """`response` as it was when it began."""
    changed: dict[str, Any] = {"status": "in_progress", "output": [], "usage": None}
    unknown_yet = {field: None for field in ("completed_at", "incomplete_details") if field in response}
    return response | changed | unknown_yet


def _item(events: EventWriter, index: int, item: dict[str, Any]) -> list[bytes]:
    item_id = item.get("id", "")
    kind = item["type"]
    opening = item | ({"status": "in_progress"} if "status" in item else {})
    if kind == "message":
        told = [events.item_added(index, opening | {"content": []})]
        for number, part in enumerate(item["content"]):
            told += _message_part(events, (item_id, index, number), part)
    elif kind == "reasoning":
        emptied: dict[str, Any] = {field: [] for field in ("summary", "content") if type(item.get(field)) is list}
        told = [events.item_added(index, opening | emptied)]
        for field, text_kind in (("summary", SUMMARY), ("content", REASONING)):
            for number, part in enumerate(item.get(field) or ()):
                told += _part(TextWriter(events, text_kind, item_id, index, number), text_kind, part)
    else:
        text_kind = ARGUMENTS if kind == "function_call" else INPUT
        told = [events.item_added(index, opening | {text_kind.field: ""})]
        told += _part(TextWriter(events, text_kind, item_id, index), text_kind, item)
    return [*told, events.item_done(index, item)]


def _part(writer: TextWriter, kind: TextKind, part: dict[str, Any]) -> list[bytes]:
    told = [writer.opened(part | {kind.field: ""})]
    told += map(writer.delta, pieces(part[kind.field]))
    return [*told, writer.closed(part)]


def _message_part(events: EventWriter, place: tuple[str, int, int], part: dict[str, Any]) -> list[bytes]:
    if part["type"] == "refusal":
        return _part(TextWriter(events, REFUSAL, *place), REFUSAL, part)
    writer = TextWriter(events, TEXT, *place)
    emptied: dict[str, Any] = {field: [] for field in ("annotations", "logprobs") if type(part.get(field)) is list}
    told = [writer.opened(part | {"text": ""} | emptied)]
    told += [writer.delta(text, logprobs) for text, logprobs in pieces_with_tokens(part["text"], part.get("logprobs"))]
    told += [writer.annotation(number, said) for number, said in enumerate(part.get("annotations") or ())]
    return [*told, writer.closed(part)]
