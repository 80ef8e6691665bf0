"""Live requests as server-sent events: what each listener of the admin socket sees, without ever waiting for one.

While nobody listens this costs nothing: the feed observes settlements only as long as it has listeners. A listener that
reads too slowly misses requests and is then told how many.
"""

from __future__ import annotations

import msgspec

from watchllm.domain.errors import Unavailable
from watchllm.domain.usage_event import UsageEvent
from watchllm.domain.usage_log import COLUMNS, row_of
from watchllm.proxy.settle import Settlement
from watchllm.wire.exchange import Exchange

MAX_LISTENERS = 32
_HEAD = b"Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n"
_encode = msgspec.json.Encoder().encode


class EventFeed:
    """The listeners of one process, which runs in `region`."""

    def __init__(self, settlement: Settlement, region: str) -> None:
        self._settlement = settlement
        self._region = region
        self._missed: dict[Exchange, int] = {}

    def listen(self, exchange: Exchange) -> None:
        """Answer with all that is settled from now on.

        Raises Unavailable when too many listen already.
        """
        if len(self._missed) >= MAX_LISTENERS:
            raise Unavailable(f"{MAX_LISTENERS} listen already; end another `watchllm logs tail`.")
        if not self._missed:
            self._settlement.observers.append(self._publish)
        self._missed[exchange] = 0
        exchange.on_disconnect = lambda: self._leave(exchange)
        exchange.on_writable = lambda: self._tell_missed(exchange)
        exchange.start(200, _HEAD)
        # The head alone would wait for the first request; a comment lets the listener know that it is heard.
        exchange.write(b": listening\n\n")

    def _publish(self, event: UsageEvent) -> None:
        message: bytes | None = None
        for exchange in self._missed:
            if not exchange.writable:
                self._missed[exchange] += 1
                continue
            if message is None:
                fields = dict(zip(COLUMNS, row_of(event, self._region), strict=True))
                message = b"event: request\ndata: " + _encode(fields) + b"\n\n"
            exchange.write(message)

    def _tell_missed(self, exchange: Exchange) -> None:
        missed = self._missed.get(exchange, 0)
        if missed:
            self._missed[exchange] = 0
            exchange.write(b'event: missed\ndata: {"missed":%d}\n\n' % missed)

    def _leave(self, exchange: Exchange) -> None:
        self._missed.pop(exchange, None)
        if not self._missed and self._publish in self._settlement.observers:
            self._settlement.observers.remove(self._publish)
