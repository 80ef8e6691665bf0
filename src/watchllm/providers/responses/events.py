"""Writes the events of a response's stream, in the order and form in which OpenAI sends them.

A stream is `response.created`, `response.in_progress`, then for each item of the output `response.output_item.added`,
its texts, `response.output_item.done`; and at last `response.completed` or `response.incomplete` with the whole
response. Each text is opened, told by deltas, and closed with the whole of it. Events are numbered from 0.
"""

from typing import Any, NamedTuple

import msgspec

_encode = msgspec.json.Encoder().encode


class EventWriter:
    """Writes and numbers the events of one stream. `number` is that of the next event."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, fields: dict[str, Any]) -> bytes:
        """A whole event of the type `kind`."""
        data = _encode({"type": kind, "sequence_number": self.number} | fields)
        self.number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def begun(self, response: dict[str, Any]) -> bytes:
        """The two events before any output. `response` is the response as it is then: in progress, without output."""
        return self.event("response.created", {"response": response}) + self.event(
            "response.in_progress", {"response": response}
        )

    def ended(self, response: dict[str, Any]) -> bytes:
        """The event that ends the stream, with the whole response."""
        return self.event(f"response.{response['status']}", {"response": response})

    def item_added(self, output_index: int, item: dict[str, Any]) -> bytes:
        """`item` as it begins: without its texts."""
        return self.event("response.output_item.added", {"output_index": output_index, "item": item})

    def item_done(self, output_index: int, item: dict[str, Any]) -> bytes:
        """`item` as it is at its end."""
        return self.event("response.output_item.done", {"output_index": output_index, "item": item})


class TextKind(NamedTuple):
    """How one kind of text is told: the names of its events, `field` that holds the text in part or item, and for texts
    that are parts of an item the part's events and the name of its number."""

    events: str
    field: str
    part_events: str = ""
    number: str = ""


TEXT = TextKind("response.output_text", "text", "response.content_part", "content_index")
REFUSAL = TextKind("response.refusal", "refusal", "response.content_part", "content_index")
REASONING = TextKind("response.reasoning_text", "text", "response.content_part", "content_index")
SUMMARY = TextKind("response.reasoning_summary_text", "text", "response.reasoning_summary_part", "summary_index")
ARGUMENTS = TextKind("response.function_call_arguments", "arguments")
INPUT = TextKind("response.custom_tool_call_input", "input")


class TextWriter:
    """Tells one text of the item `item_id`, which is number `output_index` of the output; a text that is a part of its
    item is number `part_index` of its kind."""

    __slots__ = ("_delta_head", "_delta_tail", "_events", "_has_logprobs", "_kind", "_place")

    def __init__(
        self, events: EventWriter, kind: TextKind, item_id: str, output_index: int, part_index: int = 0
    ) -> None:
        self._events = events
        self._kind = kind
        self._place: dict[str, Any] = {"item_id": item_id, "output_index": output_index}
        if kind.number:
            self._place[kind.number] = part_index
        self._has_logprobs = kind is TEXT
        name = f"{kind.events}.delta"
        # Deltas are most of a stream, so all but their number and text is written once.
        self._delta_head = f'event: {name}\ndata: {{"type":"{name}","sequence_number":'.encode()
        self._delta_tail = b"," + _encode(self._place)[1:-1] + b',"delta":'

    def opened(self, part: dict[str, Any]) -> bytes:
        """`part` as it begins: with no text."""
        if not self._kind.part_events:
            return b""
        return self._events.event(f"{self._kind.part_events}.added", self._place | {"part": part})

    def delta(self, text: str, logprobs: list[Any] | None = None) -> bytes:
        """The next piece of the text; about 1 µs."""
        number = self._events.number
        self._events.number = number + 1
        end = b"}\n\n"
        if self._has_logprobs:
            end = b',"logprobs":[]}\n\n' if not logprobs else b',"logprobs":' + _encode(logprobs) + end
        return b"%b%d%b%b%b" % (self._delta_head, number, self._delta_tail, _encode(text), end)

    def annotation(self, index: int, annotation: Any) -> bytes:
        """Annotation number `index` of the text."""
        fields = self._place | {"annotation_index": index, "annotation": annotation}
        return self._events.event("response.output_text.annotation.added", fields)

    def closed(self, whole: dict[str, Any]) -> bytes:
        """`whole` is the part, or the item, with all of its text."""
        done = self._place | {self._kind.field: whole[self._kind.field]}
        if self._has_logprobs:
            done["logprobs"] = whole.get("logprobs") or []
        written = self._events.event(f"{self._kind.events}.done", done)
        if self._kind.part_events:
            written += self._events.event(f"{self._kind.part_events}.done", self._place | {"part": whole})
        return written
