"""The state of one request on its way through the proxy."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from watchllm.domain.ids import new_request_id
from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.domain.usage_event import REFUSED, Attempt
from watchllm.proxy.directives import Directives
from watchllm.proxy.tenant import Principal
from watchllm.routing.target import Target
from watchllm.wire.exchange import Exchange

if TYPE_CHECKING:
    from watchllm.proxy.limiting import Entered, Limiting
    from watchllm.proxy.semantic.looked import Looked


class Request:
    """Facts that the stages collect and that headers, settlement and logs are made of.

    Marks are `perf_counter` seconds. Defaults stand on the class: a hit sets a third of them, and every assignment that
    it need not make is time.
    """

    principal: Principal | None = None
    directives: Directives | None = None
    target: Target | None = None
    asked_provider = ""
    """The provider of a request that was refused before it had a target."""
    model = ""
    streamed = False
    cache = REFUSED
    error: str | None = None
    usage: TokenUsage | None = None
    price: ModelPrice | None = None
    cost: Nanos | None = None
    saved: Nanos | None = None
    upstream_request_id: str | None = None
    cancel_upstream: Callable[[], None] | None = None
    entry_age = 0
    settled = False
    deferred = False
    """Settling waits for the end of a call that goes on for others; `deferred_end` keeps status and ending."""
    deferred_end: tuple[int, str] | None = None
    calls = 0
    """How many calls upstream were begun on behalf of this request."""
    attempts: tuple[Attempt, ...] = ()
    """Calls that came to nothing, before the one that answered or is under way."""
    lost_cost: Nanos = 0
    """What those may have cost."""
    at_most: TokenUsage | None = None
    """The most that one call may use, where a hard budget has to cover it: what a call is charged for whose answer does
    not come to tell. None = no such budget holds, or no call was reserved."""
    hides_hits = False
    """Nobody is told whether the answer came from the cache."""
    looked: Looked | None = None
    """What came of looking for an answer by meaning; None = it was not looked for."""
    admission: Entered | None = None
    """What it holds of the limits that it is under, until it is settled."""
    limiting: Limiting | None = None
    """Who tells what is left of its limits; None = it is under none, or nobody sent it."""
    limits_took = 0.0
    """Seconds that the limits took."""
    waited_for_judge = 0.0
    """Seconds that a judge of a like question was waited for."""
    hedged = False
    dropped: tuple[str, ...] = ()
    """Fields of the request that the provider has no counterpart for."""
    upstream_status = 0
    """The status that the last of them was answered with, 0 = none."""
    authenticated = 0.0
    looked_up = 0.0
    queue_began = 0.0
    """Since when it, or the call that it joined, waits for a slot; 0 = it does not."""
    queued = 0.0
    """Seconds that it waited for slots before."""
    upstream_began = 0.0
    try_began = 0.0
    """When the call that answered was begun, 0 = the first one did."""
    upstream_ended = 0.0
    first_byte = 0.0
    head_sent = 0.0

    def __init__(self, exchange: Exchange, endpoint: str) -> None:
        self.exchange = exchange
        self.endpoint = endpoint
        self.began = exchange.began
        self.wall_ns = wall_ns = time_ns()
        self.wall_ms = wall_ms = wall_ns // 1_000_000
        """When the request was complete, in epoch milliseconds."""
        self.id = new_request_id(wall_ms)

    def spent_upstream(self) -> float:
        """Seconds between the call upstream and its answer (or now, while none came), and those that a judge was waited
        for; 0 without a call."""
        if not self.upstream_began:
            return self.waited_for_judge
        return (self.upstream_ended or perf_counter()) - self.upstream_began + self.waited_for_judge

    def leave_queue(self, now: float) -> None:
        """It waits for no slot any more."""
        if self.queue_began:
            self.queued += now - self.queue_began
            self.queue_began = 0.0

    def waited_for_slot(self, now: float) -> float:
        """Seconds, those up to `now` included where it still waits."""
        return self.queued + (now - self.queue_began if self.queue_began else 0.0)

    def time_left(self) -> float | None:
        """Seconds that it allows for a call upstream beside those that it has waited for a slot, None = any."""
        timeout = None if self.directives is None else self.directives.timeout
        return timeout if timeout is None or not self.queued else max(timeout - self.queued, 0.001)
