"""What is recorded of a request whose process died before it settled."""

from collections.abc import Sequence

from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import ABORTED, Attempt, OpenedCall, UsageEvent

BYTES_PER_TOKEN = 4
"""English text in OpenAI's encodings, JSON around it included: rather more bytes, so that the estimate is not low."""


def aborted(calls: Sequence[OpenedCall]) -> UsageEvent:
    """The event that closes a request from its calls upstream, at least one, in the order of their attempts.

    Each is charged for an estimate of what was sent; what was answered nobody knows. `status` 0 = none was sent.
    """
    first, last = calls[0], calls[-1]
    attempts = tuple(_attempt(call, first.at_ns) for call in calls)
    costs = [attempt.cost for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    return UsageEvent(
        request_id=first.request_id,
        at_ns=first.at_ns,
        project_id=first.project_id,
        key_id=first.key_id,
        endpoint=first.endpoint,
        provider=last.provider,
        model=last.model,
        status=0,
        cache=last.cache,
        streamed=last.streamed,
        ended=ABORTED,
        error=ABORTED,
        usage=TokenUsage(sum(_tokens(call) for call in calls), estimated=True),
        cost=sum(known) if len(known) == len(costs) else None,
        price=last.price,
        user=first.user,
        session=first.session,
        tags=first.tags,
        attempts=attempts,
    )


def _attempt(call: OpenedCall, began_ns: int) -> Attempt:
    usage = TokenUsage(_tokens(call), estimated=True)
    return Attempt(
        provider=call.provider,
        model=call.model,
        status=0,
        # The wall clock may have jumped in between.
        began_us=max(call.at_ns - began_ns, 0) // 1000,
        took_us=0,
        usage=usage,
        cost=None if call.price is None else call.price.cost(usage),
        price=call.price,
        error=ABORTED,
        key_id=call.provider_key_id,
        hedged=call.hedged,
    )


def _tokens(call: OpenedCall) -> int:
    return -(-call.input_bytes // BYTES_PER_TOKEN)
