"""Rollups: sums by hour, project, provider and model, kept in the transaction that writes the rows they sum up."""

from typing import TypeAlias

from watchllm.domain.usage_event import (
    ABORTED,
    BYPASS,
    CANCELLED,
    CUT,
    ERROR,
    FREE_HITS,
    HIT,
    HIT_COALESCED,
    HIT_PARTIAL,
    HIT_SEMANTIC,
    HIT_STALE,
    MISS,
    UsageEvent,
)

HOUR_MS = 3_600_000

KEY = ("hour_ms", "project_id", "provider", "model")
MEASURES = (
    "requests",
    "errors",
    "cancelled",
    "hits",
    "hits_semantic",
    "hits_coalesced",
    "hits_partial",
    "hits_stale",
    "misses",
    "bypasses",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "saved_tokens",
    "unpriced",
    "estimated",
    "cost_nanos",
    "saved_nanos",
    "latency_us",
    "overhead_us",
)
"""`hits` are exact hits. Hits of all kinds are counted where they were answered: who waited for a call that failed was
not served for nothing. Token columns count what was bought; what hits spared is in `saved_tokens`. `unpriced` counts
requests whose tokens have no known cost. `latency_us` and `overhead_us` are sums."""

Key: TypeAlias = tuple[int, str, str, str]
Rollup: TypeAlias = dict[Key, list[int]]

_BY_CACHE = {
    cache: MEASURES.index(name)
    for cache, name in (
        (HIT, "hits"),
        (HIT_SEMANTIC, "hits_semantic"),
        (HIT_COALESCED, "hits_coalesced"),
        (HIT_PARTIAL, "hits_partial"),
        (HIT_STALE, "hits_stale"),
        (MISS, "misses"),
        (BYPASS, "bypasses"),
    )
}
_HITS = frozenset((HIT, HIT_SEMANTIC, HIT_COALESCED, HIT_PARTIAL, HIT_STALE))
_FAILED = frozenset((ERROR, CUT, ABORTED))


def add(rollup: Rollup, event: UsageEvent) -> None:
    """Count one event."""
    at_ms = max(event.at_ns, 0) // 1_000_000
    key = (at_ms - at_ms % HOUR_MS, event.project_id, event.provider, event.model)
    sums = rollup.get(key)
    if sums is None:
        sums = rollup[key] = [0] * len(MEASURES)
    # By position in MEASURES: this is done for every row that the recorder writes.
    sums[0] += 1
    if event.ended in _FAILED:
        sums[1] += 1
    elif event.ended == CANCELLED:
        sums[2] += 1
    cache = _BY_CACHE.get(event.cache)
    if cache is not None and (200 <= event.status < 300 or event.cache not in _HITS):
        sums[cache] += 1
    usage = event.usage
    if usage is not None:
        if event.cache in FREE_HITS:
            sums[17] += usage.input + usage.output
        else:
            sums[10] += usage.input
            sums[11] += usage.output
            sums[12] += usage.cached_input
            sums[13] += usage.cache_write
            sums[14] += usage.reasoning
            sums[15] += usage.audio_input
            sums[16] += usage.audio_output
            if event.cost is None:
                sums[18] += 1
        if usage.estimated:
            sums[19] += 1
    sums[20] += event.cost or 0
    sums[21] += event.saved or 0
    sums[22] += event.latency_us
    sums[23] += event.overhead_us
