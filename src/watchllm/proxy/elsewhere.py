"""A question that another process is asking its provider just now: its answer is waited for, and taken from the cache.

Best effort: where nobody can be asked, or the other's answer is not to be had (it was not stored, it failed, its
process died), this process calls, too.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from watchllm.cache.entry import Entry
from watchllm.domain.errors import TimedOut
from watchllm.proxy.at_hand import bring, places_of
from watchllm.proxy.eager import Outcome
from watchllm.proxy.retelling import kept_for_dialect, told_in

if TYPE_CHECKING:
    from watchllm.cache.leases import Leases
    from watchllm.providers.endpoints import Endpoint
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services


async def answered_elsewhere(
    services: Services, leases: Leases, request: Request, endpoint: Endpoint, asked: Asked, body: bytes, key: bytes
) -> Entry | None:
    """The answer that another process was waited for, in the request's own words; None = the caller goes on: it joins
    the call that this process makes, or makes one. Raises TimedOut when the request's own time is over."""
    principal, wishes = request.principal, request.directives
    assert principal is not None
    assert wishes is not None
    partition = principal.tenant.partition
    told: Outcome[bool] = Outcome()
    place = partition + key
    if leases.claim(place, told.resolve):
        return None
    request.upstream_began = perf_counter()
    timer = None
    if wishes.timeout is not None:
        problem = f"The provider did not answer within the {wishes.timeout:g} s that X-WatchLLM-Timeout allows."
        timer = services.loop.call_later(wishes.timeout, told.fail, TimedOut(problem))
    try:
        is_caller = await told
    finally:
        if timer is not None:
            timer.cancel()
    if is_caller or place in services.flights:
        return None
    request.upstream_ended = perf_counter()
    brought = bring(services, partition, places_of(key, endpoint, asked.target))
    if brought is not None:
        await brought
    entry = services.cache.get(partition, key)
    told_entry = None if entry is None else told_in(endpoint, entry, body)
    if told_entry is None:
        told_entry = kept_for_dialect(services.cache, partition, key, endpoint, asked.target, body)
    # Made after this request came, it is as fresh as an answer can be; only what may not be had at all is refused.
    return told_entry if told_entry is not None and wishes.accept(told_entry, services.now_ms()) else None
