"""The usage event: what the data plane tells the control plane about one request, once, when it is settled."""

import msgspec

from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice, TokenUsage

HIT = "HIT"
HIT_SEMANTIC = "HIT-SEMANTIC"
HIT_COALESCED = "HIT-COALESCED"
HIT_PARTIAL = "HIT-PARTIAL"
HIT_STALE = "HIT-STALE"
MISS = "MISS"
BYPASS = "BYPASS"
REFUSED = ""
"""The request was refused before the cache was asked."""


class UsageEvent(msgspec.Struct, frozen=True, array_like=True):
    """One authenticated request. Times in epoch nanoseconds, durations in microseconds; None = not known.

    `cost` is what this request cost, `saved` what its hit would have cost; `error` is the contract's error code;
    `ended` is how the answer ended: `complete`, `error`, `cancelled` (the client left) or `cut` (upstream broke off).
    """

    request_id: str
    at_ns: int
    project_id: str
    key_id: str
    endpoint: str
    provider: str
    model: str
    status: int
    cache: str
    streamed: bool
    ended: str
    error: str | None = None
    usage: TokenUsage | None = None
    cost: Nanos | None = None
    saved: Nanos | None = None
    price: ModelPrice | None = None
    latency_us: int = 0
    overhead_us: int = 0
    first_byte_us: int | None = None
    total_us: int = 0
    user: str | None = None
    session: str | None = None
    tags: str | None = None
    upstream_request_id: str | None = None
