"""The usage event: what the data plane tells the control plane about one request, once, when it is settled.

Written into journals as MessagePack arrays: new fields are appended with a default, and the version of its journal
record grows with them (see journal.records).
"""

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


COMPLETE, ERROR, CANCELLED, CUT, ABORTED = "complete", "error", "cancelled", "cut", "aborted"
"""How an answer ended; `aborted` is written by the recorder for calls of a process that died."""

FREE_HITS = frozenset((HIT, HIT_SEMANTIC, HIT_COALESCED, HIT_STALE))
"""Their usage was bought by an earlier request; that of HIT-PARTIAL is what was bought for this one."""


# Without the collector's bookkeeping, like all that is made for every request: they hold nothing that could hold them.
class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call upstream on behalf of a request. `began_us` counts from the request's begin; `status` 0 = no answer.

    `key_id` is the project's provider key it was made with, None = the instance's; `hedged`: it was begun beside one
    that had not answered yet.
    """

    provider: str
    model: str
    status: int
    began_us: int
    took_us: int
    usage: TokenUsage | None = None
    cost: Nanos | None = None
    price: ModelPrice | None = None
    error: str | None = None
    key_id: str | None = None
    hedged: bool = False


class OpenedCall(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call upstream that is about to begin: what is known of it should the process die before the request settles.

    `attempt` counts the calls of one request from 0; `input_bytes` is the size of the body sent, 0 = not known.
    `provider_key_id` and `hedged` are what Attempt has as `key_id` and `hedged`.
    """

    request_id: str
    at_ns: int
    attempt: int
    project_id: str
    key_id: str
    endpoint: str
    provider: str
    model: str
    cache: str
    streamed: bool
    input_bytes: int = 0
    price: ModelPrice | None = None
    user: str | None = None
    session: str | None = None
    tags: str | None = None
    provider_key_id: str | None = None
    hedged: bool = False


class UsageEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One authenticated request. Times in epoch nanoseconds, durations in microseconds; None = not known.

    `cost` is what this request cost, `saved` what its hit would have cost; `error` is the contract's error code;
    `ended` is how the answer ended: `complete`, `error`, `cancelled` (the client left), `cut` (upstream broke off, or
    this gateway did: `error` says which) or `aborted` (this process died; `status` is then 0).

    `semantic` is what became of the look-up by meaning, None = there was none: `hit` (served), `shadow-hit` (would have
    been), `miss` (the stored ones were too different), `empty` (none was stored in that context), `not-tried` or
    `warming`. `similarity` and `confidence` are those of the nearest; `semantic_reason` names in a word what said no.
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
    attempts: tuple[Attempt, ...] = ()
    semantic: str | None = None
    similarity: float | None = None
    confidence: float | None = None
    semantic_reason: str | None = None
