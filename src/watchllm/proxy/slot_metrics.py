"""What is to be seen of the slots and of the queue for them, in Prometheus' text form."""

from __future__ import annotations

from itertools import accumulate

from watchllm.limits.tiers import TIERS
from watchllm.proxy.slots import WAIT_BOUNDS, Slots


def slot_metrics(slots: Slots) -> list[str]:
    """Its lines. Tiers of which none ever waited have no histogram."""
    lines = [
        f"# TYPE watchllm_upstream_calls gauge\nwatchllm_upstream_calls {slots.under_way}",
        f"# TYPE watchllm_upstream_slots gauge\nwatchllm_upstream_slots {slots.allowed}",
        "# TYPE watchllm_queue_waiting gauge",
    ]
    lines += [f'watchllm_queue_waiting{{tier="{tier.name}"}} {slots.waiting_in(tier)}' for tier in TIERS]
    lines.append("# TYPE watchllm_queue_refused_total counter")
    for (tier, code), count in sorted(slots.refused.items()):
        lines.append(f'watchllm_queue_refused_total{{tier="{tier}",code="{code}"}} {count}')
    lines.append("# TYPE watchllm_queue_wait_seconds histogram")
    for tier, counts in slots.waits.items():
        if any(counts):
            lines += _histogram(tier, counts, slots.wait_seconds[tier])
    return lines


def _histogram(tier: str, counts: list[int], seconds: float) -> list[str]:
    *upto, total = accumulate(counts)
    lines = [
        f'watchllm_queue_wait_seconds_bucket{{tier="{tier}",le="{bound:g}"}} {count}'
        for bound, count in zip(WAIT_BOUNDS, upto, strict=True)
    ]
    return [
        *lines,
        f'watchllm_queue_wait_seconds_bucket{{tier="{tier}",le="+Inf"}} {total}',
        f'watchllm_queue_wait_seconds_sum{{tier="{tier}"}} {seconds:.6f}',
        f'watchllm_queue_wait_seconds_count{{tier="{tier}"}} {total}',
    ]
