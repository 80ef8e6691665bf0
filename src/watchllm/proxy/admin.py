"""The operators' listener of one proxy process: metrics, state, live requests; a Unix socket, or an address with a
token."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

import msgspec

from watchllm.domain.errors import GatewayError, NotFound, Unauthorized
from watchllm.proxy import egress
from watchllm.proxy.events import EventFeed
from watchllm.proxy.services import Services
from watchllm.proxy.settle import LATENCY_BOUNDS_US, Counted
from watchllm.proxy.slot_metrics import slot_metrics
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.server import Server

if TYPE_CHECKING:
    from watchllm.cache.semantic.awaited import Awaited
    from watchllm.cache.semantic.cross_encoding import CrossEncoding

_TEXT = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
_JSON = b"Content-Type: application/json\r\n"


class AdminApp:
    """Implements `wire.server.Handler`. With a `token`, every request must carry it as `Authorization: Bearer …`.

    Live requests carry the `region` that their rows will have.
    """

    def __init__(self, services: Services, public: Server, token: str | None, region: str) -> None:
        self._services = services
        self._public = public
        self._events = EventFeed(services.settlement, region)
        self._credential = None if token is None else f"Bearer {token}".encode()

    def body_mode(self, exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        try:
            self._authorize(exchange)
            if exchange.path == b"/metrics":
                exchange.respond(200, _TEXT, metrics(self._services, self._public).encode())
            elif exchange.path == b"/events":
                self._events.listen(exchange)
            elif exchange.path == b"/status":
                exchange.respond(200, _JSON, msgspec.json.encode(self._status()))
            elif exchange.path == b"/breakers":
                states = self._services.breakers.states()
                exchange.respond(200, _JSON, msgspec.json.encode({"breakers": states}))
            elif exchange.path == b"/explain":
                exchange.respond(200, _JSON, msgspec.json.encode(self._explain(exchange.query)))
            else:
                raise NotFound("The admin listener has /metrics, /status, /breakers, /events and /explain?id=req_….")
        except GatewayError as error:
            exchange.respond(error.status, _JSON, egress.error_body(error))

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        return _JSON, egress.error_body(error)

    def _authorize(self, exchange: Exchange) -> None:
        if self._credential is None:
            return
        given = exchange.header(b"authorization") or b""
        if not hmac.compare_digest(given, self._credential):
            raise Unauthorized("The admin listener takes its token as 'Authorization: Bearer …'.")

    def _explain(self, query: bytes) -> dict[str, object]:
        explained = self._services.history.explain(query.removeprefix(b"id=").decode("latin-1"))
        if explained is None:
            raise NotFound("This process does not remember that request.")
        return explained

    def _status(self) -> dict[str, object]:
        counters = self._services.counters
        return {
            "pid": os.getpid(),
            "port": self._public.port,
            "snapshot_version": self._services.tenants.version,
            "dependencies": self._services.dependencies(),
            "connections": self._public.connections,
            "inflight_bytes": self._public.inflight_bytes,
            "requests": sum(counters.read().requests.values()),
            "internal_errors": counters.internal_errors,
        }


def metrics(services: Services, public: Server) -> str:
    """The process's counters in Prometheus' text form."""
    counters = services.counters
    counted = counters.read()
    lines = ["# TYPE watchllm_requests_total counter"]
    for (endpoint, cache, status), count in sorted(counted.requests.items()):
        labels = f'endpoint="{endpoint}",cache="{cache}",status="{status}"'
        lines.append(f"watchllm_requests_total{{{labels}}} {count}")
    lines += _latency(counted)
    lines += _semantic(services)
    lines += slot_metrics(services.slots)
    lines += [
        f"# TYPE watchllm_redis_{name}_total counter\nwatchllm_redis_{name}_total {value}"
        for name, value in services.store_counters().items()
    ]
    lines += [
        f"# TYPE {name} {kind}\n{name} {value}"
        for name, kind, value in (
            ("watchllm_overhead_seconds_total", "counter", counted.overhead_sum_us / 1e6),
            ("watchllm_unauthenticated_total", "counter", counters.unauthenticated),
            ("watchllm_refused_by_wire_total", "counter", counters.refused_by_wire),
            ("watchllm_internal_errors_total", "counter", counters.internal_errors),
            ("watchllm_cost_usd_total", "counter", counted.cost_nanos / 1e9),
            ("watchllm_saved_usd_total", "counter", counted.saved_nanos / 1e9),
            ("watchllm_connections", "gauge", public.connections),
            ("watchllm_inflight_request_bytes", "gauge", public.inflight_bytes),
            ("watchllm_snapshot_version", "gauge", services.tenants.version),
            ("watchllm_unrecorded_total", "counter", services.settlement.journal.unrecorded),
        )
    ]
    return "\n".join(lines) + "\n"


def _semantic(services: Services) -> list[str]:
    """Look-ups by meaning, by what came of them, and what is in memory for them."""
    semantic = services.semantic
    lines = ["# TYPE watchllm_semantic_lookups_total counter"]
    for (outcome, reason), count in sorted(semantic.looked_up.items()):
        lines.append(f'watchllm_semantic_lookups_total{{outcome="{outcome}",reason="{reason}"}} {count}')
    if semantic.engine is not None:
        memory = semantic.engine.memory
        for name, value in (("prompts", memory.entries), ("partitions", memory.partitions)):
            lines.append(f"# TYPE watchllm_semantic_{name} gauge\nwatchllm_semantic_{name} {value}")
        lines += _embedder(semantic.engine.awaited)
        lines += _cross_encoder(semantic.engine.cross_encoding)
    return lines


def _embedder(embedder: Awaited | None) -> list[str]:
    """What became of texts whose vectors are waited for, and what was charged for them."""
    if embedder is None:
        return []
    made = [
        f'watchllm_embeddings_total{{outcome="{what}"}} {count}' for what, count in sorted(embedder.counted.items())
    ]
    tokens = f"# TYPE watchllm_embedder_tokens_total counter\nwatchllm_embedder_tokens_total {embedder.tokens}"
    return ["# TYPE watchllm_embeddings_total counter", *made, tokens]


def _cross_encoder(encoding: CrossEncoding | None) -> list[str]:
    """What became of the pairs that the cross-encoder was asked about."""
    if encoding is None:
        return []
    pairs = [
        f'watchllm_cross_encoder_pairs_total{{outcome="{what}"}} {count}'
        for what, count in sorted(encoding.counted.items())
    ]
    return ["# TYPE watchllm_cross_encoder_pairs_total counter", *pairs]


def _latency(counted: Counted) -> list[str]:
    lines = ["# TYPE watchllm_latency_seconds histogram"]
    total = 0
    for bound, count in zip(LATENCY_BOUNDS_US, counted.latency, strict=False):
        total += count
        lines.append(f'watchllm_latency_seconds_bucket{{le="{bound / 1e6:g}"}} {total}')
    total += counted.latency[-1]
    lines.append(f'watchllm_latency_seconds_bucket{{le="+Inf"}} {total}')
    lines.append(f"watchllm_latency_seconds_sum {counted.latency_sum_us / 1e6}")
    lines.append(f"watchllm_latency_seconds_count {total}")
    return lines
