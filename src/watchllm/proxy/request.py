"""The state of one request on its way through the proxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter

from watchllm.domain.ids import new_request_id
from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.domain.usage_event import REFUSED
from watchllm.proxy.directives import Directives
from watchllm.proxy.tenants import Principal
from watchllm.routing.resolve import Target
from watchllm.wire.exchange import Exchange


class Request:
    """Facts that the stages collect and that headers, settlement and logs are made of.

    Marks are `perf_counter` seconds; `waited` is the time spent waiting for upstream before the head was sent.
    """

    __slots__ = (
        "authenticated",
        "began",
        "cache",
        "cancel_upstream",
        "cost",
        "directives",
        "endpoint",
        "entry_age",
        "error",
        "exchange",
        "first_byte",
        "head_sent",
        "id",
        "looked_up",
        "model",
        "price",
        "principal",
        "saved",
        "settled",
        "streamed",
        "target",
        "upstream_began",
        "upstream_ended",
        "upstream_request_id",
        "usage",
        "wall_ns",
    )

    def __init__(self, exchange: Exchange, endpoint: str) -> None:
        self.exchange = exchange
        self.endpoint = endpoint
        self.id = new_request_id()
        self.began = exchange.began
        self.wall_ns = time.time_ns()
        self.principal: Principal | None = None
        self.directives: Directives | None = None
        self.target: Target | None = None
        self.model = ""
        self.streamed = False
        self.cache = REFUSED
        self.error: str | None = None
        self.usage: TokenUsage | None = None
        self.price: ModelPrice | None = None
        self.cost: Nanos | None = None
        self.saved: Nanos | None = None
        self.upstream_request_id: str | None = None
        self.entry_age = 0
        self.settled = False
        self.cancel_upstream: Callable[[], None] | None = None
        self.authenticated = 0.0
        self.looked_up = 0.0
        self.upstream_began = 0.0
        self.upstream_ended = 0.0
        self.first_byte = 0.0
        self.head_sent = 0.0

    @property
    def wall_ms(self) -> int:
        """When the request was complete, in epoch milliseconds."""
        return self.wall_ns // 1_000_000

    def spent_upstream(self) -> float:
        """Seconds between the call upstream and its answer (or now, while none came); 0 without a call."""
        if not self.upstream_began:
            return 0.0
        return (self.upstream_ended or perf_counter()) - self.upstream_began
