"""A finished response as the sequence of events in which it comes into being."""

from typing import Any

import msgspec

from watchllm.sim.answer import Choice
from watchllm.sim.reply import StreamReply
from watchllm.sim.text import tokenize

_PART_CHARACTERS = 6
_encode = msgspec.json.Encoder().encode


def response_stream(begun: dict[str, Any], done: dict[str, Any], choice: Choice) -> StreamReply:
    """The events from `begun` to `done`; the last one, which tells the status and usage, is the end of the stream."""
    events = _Events()
    events.add("response.created", response=begun)
    events.add("response.in_progress", response=begun)
    for index, item in enumerate(done["output"]):
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            _message(events, place, item, choice)
        elif item["type"] == "reasoning":
            _reasoning(events, place, item)
        else:
            _call(events, place, item)
    end = events.made(f"response.{done['status']}", response=done)
    return StreamReply(events.sent, done=end, usage_in_done=True)


class _Events:
    """Events numbered in the order in which they are made."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def add(self, name: str, **content: Any) -> None:
        self.sent.append(self.made(name, **content))

    def made(self, name: str, **content: Any) -> bytes:
        data = _encode({"type": name, "sequence_number": len(self.sent), **content})
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _message(events: _Events, place: dict[str, Any], item: dict[str, Any], choice: Choice) -> None:
    index = place["output_index"]
    at = {**place, "content_index": 0}
    part = item["content"][0]
    refused = part["type"] == "refusal"
    events.add("response.output_item.added", output_index=index, item={**item, "status": "in_progress", "content": []})
    empty = {**part, "refusal": ""} if refused else {**part, "annotations": [], "logprobs": [], "text": ""}
    events.add("response.content_part.added", **at, part=empty)
    if refused:
        for token in choice.tokens:
            events.add("response.refusal.delta", **at, delta=token)
        events.add("response.refusal.done", **at, refusal=part["refusal"])
    else:
        for position, token in enumerate(choice.tokens):
            logprobs = part["logprobs"][position : position + 1]
            events.add("response.output_text.delta", **at, delta=token, logprobs=logprobs)
        for number, annotation in enumerate(part["annotations"]):
            events.add("response.output_text.annotation.added", **at, annotation_index=number, annotation=annotation)
        events.add("response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"])
    events.add("response.content_part.done", **at, part=part)
    events.add("response.output_item.done", output_index=index, item=item)


def _reasoning(events: _Events, place: dict[str, Any], item: dict[str, Any]) -> None:
    index = place["output_index"]
    opening = {**item, "summary": []}
    if "content" in item:
        opening["content"] = []
    events.add("response.output_item.added", output_index=index, item=opening)
    for number, part in enumerate(item.get("content", ())):
        at = {**place, "content_index": number}
        events.add("response.content_part.added", **at, part={**part, "text": ""})
        for token in tokenize(part["text"]):
            events.add("response.reasoning_text.delta", **at, delta=token)
        events.add("response.reasoning_text.done", **at, text=part["text"])
        events.add("response.content_part.done", **at, part=part)
    for number, part in enumerate(item["summary"]):
        at = {**place, "summary_index": number}
        events.add("response.reasoning_summary_part.added", **at, part={**part, "text": ""})
        for token in tokenize(part["text"]):
            events.add("response.reasoning_summary_text.delta", **at, delta=token)
        events.add("response.reasoning_summary_text.done", **at, text=part["text"])
        events.add("response.reasoning_summary_part.done", **at, part=part)
    events.add("response.output_item.done", output_index=index, item=item)


def _call(events: _Events, place: dict[str, Any], item: dict[str, Any]) -> None:
    index = place["output_index"]
    free = item["type"] == "custom_tool_call"
    field, name = ("input", "custom_tool_call_input") if free else ("arguments", "function_call_arguments")
    text = item[field]
    events.add("response.output_item.added", output_index=index, item={**item, "status": "in_progress", field: ""})
    for start in range(0, len(text), _PART_CHARACTERS):
        events.add(f"response.{name}.delta", **place, delta=text[start : start + _PART_CHARACTERS])
    events.add(f"response.{name}.done", **place, **{field: text})
    events.add("response.output_item.done", output_index=index, item=item)
