"""Items of a response that grow while a chat's stream is read: each is opened, told piece by piece, and closed."""

from io import StringIO
from typing import Any

from watchllm.providers.responses.events import ARGUMENTS, INPUT, REFUSAL, SUMMARY, TEXT, EventWriter, TextWriter
from watchllm.providers.translation import responses_output
from watchllm.providers.translation.responses_output import CUSTOM, CallKind


class GrowingMessage:
    """What the model says. It has a part of text, then maybe one of refusal; each is closed by the next."""

    def __init__(self, events: EventWriter, item_id: str, output_index: int) -> None:
        self._events = events
        self._id = item_id
        self._index = output_index
        self._parts: list[dict[str, Any]] = []
        self._writer: TextWriter | None = None
        self._text = StringIO()
        self._logprobs: list[Any] = []

    def opened(self) -> bytes:
        return self._events.item_added(
            self._index, responses_output.message_item(self._id, []) | {"status": "in_progress"}
        )

    def said(self, text: str, logprobs: list[Any]) -> bytes:
        """More text, with the log probabilities of its tokens."""
        told, writer = self._part("output_text")
        self._text.write(text)
        self._logprobs += logprobs
        return told + writer.delta(text, logprobs)

    def refused(self, text: str) -> bytes:
        """More of the model's refusal."""
        told, writer = self._part("refusal")
        self._text.write(text)
        return told + writer.delta(text)

    def annotated(self, annotation: dict[str, Any]) -> bytes:
        """An annotation of the text."""
        told, writer = self._part("output_text")
        annotations = self._parts[-1]["annotations"]
        annotations.append(annotation)
        return told + writer.annotation(len(annotations) - 1, annotation)

    def closed(self, status: str) -> bytes:
        return self._close_part() + self._events.item_done(self._index, self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        """The whole item, once it is closed."""
        return responses_output.message_item(self._id, self._parts) | {"status": status}

    def _part(self, kind: str) -> tuple[bytes, TextWriter]:
        """The writer of the open part, and what had to be told so that it is one of this kind."""
        if self._writer is not None and self._parts[-1]["type"] == kind:
            return b"", self._writer
        told = self._close_part()
        part = responses_output.text_part("", [], []) if kind == "output_text" else {"type": kind, "refusal": ""}
        text_kind = TEXT if kind == "output_text" else REFUSAL
        self._writer = TextWriter(self._events, text_kind, self._id, self._index, len(self._parts))
        self._parts.append(part)
        return told + self._writer.opened(part), self._writer

    def _close_part(self) -> bytes:
        if self._writer is None:
            return b""
        part = self._parts[-1]
        if part["type"] == "output_text":
            part |= {"text": self._text.getvalue(), "logprobs": self._logprobs}
        else:
            part["refusal"] = self._text.getvalue()
        told = self._writer.closed(part)
        self._writer, self._text, self._logprobs = None, StringIO(), []
        return told


class GrowingReasoning:
    """What the model thinks, told as a summary, and the signed blocks of it that the client has to keep."""

    def __init__(self, events: EventWriter, item_id: str, output_index: int) -> None:
        self._events = events
        self._id = item_id
        self._index = output_index
        self._writer: TextWriter | None = None
        self._text = StringIO()
        self._blocks: list[dict[str, Any]] = []

    def opened(self) -> bytes:
        return self._events.item_added(self._index, responses_output.reasoning_item(self._id, "", []))

    def thought(self, text: str) -> bytes:
        """More of the text."""
        told = b""
        if self._writer is None:
            self._writer = TextWriter(self._events, SUMMARY, self._id, self._index)
            told = self._writer.opened({"type": "summary_text", "text": ""})
        self._text.write(text)
        return told + self._writer.delta(text)

    def keep(self, block: dict[str, Any]) -> None:
        """A thinking block, or a piece of the one with its `index`: texts of pieces are joined."""
        index = block.get("index")
        kept = {field: value for field, value in block.items() if field != "index"}
        if type(index) is not int:
            self._blocks.append(kept)
            return
        for held in self._blocks:
            if held.get("index") == index:
                for field, value in kept.items():
                    joined = field != "type" and type(value) is str and type(held.get(field)) is str
                    held[field] = held[field] + value if joined else held.get(field) if value is None else value
                return
        self._blocks.append(kept | {"index": index})

    def closed(self, status: str) -> bytes:
        told = b""
        if self._writer is not None:
            told = self._writer.closed({"type": "summary_text", "text": self._text.getvalue()})
        return told + self._events.item_done(self._index, self.item(status))

    def item(self, status: str) -> dict[str, Any]:
        """The whole item, once it is closed. Reasoning is not told to be complete or not."""
        blocks = [{field: value for field, value in block.items() if field != "index"} for block in self._blocks]
        return responses_output.reasoning_item(self._id, self._text.getvalue(), blocks)


class GrowingCall:
    """A call of a tool, once its name is known."""

    def __init__(
        self, events: EventWriter, kind: CallKind, item_id: str, output_index: int, call_id: Any, name: str
    ) -> None:
        self._events = events
        self._kind = kind
        self._index = output_index
        self._writer = TextWriter(events, INPUT if kind is CUSTOM else ARGUMENTS, item_id, output_index)
        self._item = responses_output.call_item(kind, item_id, call_id, name, "")
        self._text = StringIO()

    def opened(self) -> bytes:
        return self._events.item_added(self._index, self._item | {"status": "in_progress"})

    def written(self, text: str) -> bytes:
        """More of the arguments, or of a custom tool's input."""
        self._text.write(text)
        return self._writer.delta(text)

    def closed(self, status: str) -> bytes:
        item = self.item(status)
        return self._writer.closed(item) + self._events.item_done(self._index, item)

    def item(self, status: str) -> dict[str, Any]:
        """The whole item, once it is closed."""
        return self._item | {self._kind.field: self._text.getvalue(), "status": status}
