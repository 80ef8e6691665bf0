"""Reads the stream of a response along. Its last event holds the whole response, so nothing has to be put together.

What has to be watched for is that this event is believed only at the end of a stream that is whole: events that come
twice, out of order or after the end, and errors, leave no result.
"""

from io import StringIO
from typing import Any

import msgspec

from watchllm.domain.usage import TokenUsage
from watchllm.providers.doubled import Pairs
from watchllm.providers.responses.storable import finish_reasons
from watchllm.providers.responses.usage import token_usage

MAX_BYTES = 4 * 1024 * 1024
"""Default bound of what one assembly keeps: bytes of the response, and of items where the response lacks them."""


class StreamAssembler:
    """Reads the stream of the answer to one request along. Beyond `limit` the text is forgotten and there will be no
    result, but usage and ending are still read."""

    __slots__ = (
        "_charged",
        "_items",
        "_last",
        "_limit",
        "_pairs",
        "_response",
        "_text",
        "_usage",
        "done",
        "error",
        "failure",
        "text_length",
    )

    def __init__(self, *, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._charged = 0
        self._items: dict[int, Any] = {}
        self._last = -1
        self._pairs = Pairs()
        self._response: dict[str, Any] | None = None
        self._text = StringIO()
        self._usage: Any = None
        self.done = False
        """Whether the event came that ends a stream."""
        self.error: Any = None
        self.failure: str | None = None
        self.text_length = 0

    @property
    def usage(self) -> TokenUsage | None:
        """The last usage that the stream reported."""
        return token_usage(self._usage)

    @property
    def text(self) -> str:
        """All that was written so far: texts, reasoning, arguments of calls; empty once it was forgotten."""
        return self._text.getvalue()

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """How the response ended, once it did."""
        return () if self._response is None else finish_reasons(self._response)

    def feed(self, data: bytes) -> None:
        """Take the data of the next event in; about 2 µs. Raises nothing: see `failure` and `error`."""
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Some gateways end every stream as chat completions end.
            if not (self.done and data.startswith(b"[DONE]")):
                self._fail("an event is not JSON")
            return
        except RecursionError:
            self._fail("an event is nested too deep")
            return
        if type(event) is not dict or type(event.get("type")) is not str:
            error = event.get("error") if type(event) is dict else None
            if error:
                self.error = error
            else:
                self._fail("an event has no type")
            return
        self._check_order(event.get("sequence_number"))
        self._take(event["type"], event, len(data))
        if self._charged > self._limit:
            self._fail("too large")

    def result(self) -> bytes | None:
        """The whole response as JSON, or None when the stream was cut, failed, or could not be read."""
        if self._response is None or not self.done or self.error is not None or self.failure is not None:
            return None
        if self._pairs.doubled:
            return None  # Events without numbers, or those of a stream that was translated.
        try:
            return _encode(self._response)
        except RecursionError:
            return None

    def _check_order(self, number: Any) -> None:
        if self.done:
            self._fail("an event after the end")
        # Not all vendors number their events.
        if type(number) is int:
            if number <= self._last:
                self._fail("an event came twice or out of order")
            self._last = number

    def _take(self, kind: str, event: dict[str, Any], size: int) -> None:
        delta = event.get("delta")
        if type(delta) is str:
            self.text_length += len(delta)
            if self.failure is None:
                if self._pairs.open and delta:
                    self._pairs.take(delta)
                self._text.write(delta)
                self._charged += len(delta)
        elif kind == "response.output_item.done":
            index = event.get("output_index")
            if self.failure is None and type(index) is int:
                self._items[index] = event.get("item")
                self._charged += size
        elif kind == "error":
            self.error = event.get("error") or event
        elif "response" in event:
            self._take_response(kind, event["response"], size)

    def _take_response(self, kind: str, response: Any, size: int) -> None:
        if type(response) is not dict:
            self._fail("a response is not an object")
            return
        if response.get("usage") is not None:
            self._usage = response["usage"]
        if kind not in _ENDINGS:
            return
        self.done = True
        if kind == "response.failed" or response.get("error"):
            self.error = response.get("error") or {"message": "The response failed."}
        if self._items and not response.get("output"):
            response["output"] = [item for _, item in sorted(self._items.items())]
        else:
            self._charged += size
        self._items = {}
        self._response = response

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._text = StringIO()
        self._items = {}
        if self._response is not None:
            self._response = {field: self._response.get(field) for field in ("status", "incomplete_details")}


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_ENDINGS = frozenset(("response.completed", "response.incomplete", "response.failed"))
