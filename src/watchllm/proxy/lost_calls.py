"""Calls upstream that came to nothing, as attempts of their request, with what each may have cost."""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import Attempt
from watchllm.providers import tokens
from watchllm.proxy.approach import Approach, Candidate
from watchllm.proxy.one_try import Try
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services


class Made(Protocol):
    """A call that was made: when (`perf_counter`), how, and its answer's status, 0 = none."""

    candidate: Candidate
    approach: Approach
    began: float
    status: int
    hedged: bool


class LostCalls:
    """Those of one request."""

    __slots__ = ("_request", "_services")

    def __init__(self, services: Services, request: Request) -> None:
        self._services = services
        self._request = request

    def ended(self, one: Try, why: str) -> None:
        """Write down a call that was ended for `why`, or whose refusal is not passed on."""
        if one.status not in (0, 200):
            self.record(one, refusal_code(one.status), None)
        else:
            self.record(one, why, lost_usage(self._request, one.approach) if one.sent else None)

    def record(self, one: Made, error: str, usage: TokenUsage | None) -> None:
        """Make a call an attempt of the request; `usage` is what it may be charged for."""
        request, target = self._request, one.candidate.target
        price = self._services.tenants.price(target.provider, target.model)
        cost = 0 if usage is None else (price.cost(usage) if price is not None else None)
        request.lost_cost += cost or 0
        request.attempts = (
            *request.attempts,
            Attempt(
                target.provider,
                target.model[:256],
                one.status,
                int((one.began - request.began) * 1e6),
                int((perf_counter() - one.began) * 1e6),
                usage,
                cost,
                price,
                error,
                target.key_id,
                one.hedged,
            ),
        )

    def take_back(self) -> None:
        """The call written down last is not lost after all: its answer is passed on."""
        request = self._request
        *before, last = request.attempts
        request.attempts = tuple(before)
        request.lost_cost -= last.cost or 0


def refusal_code(status: int) -> str:
    """The contract's code for a provider's status, for the attempt's record."""
    if status in (401, 403):
        return "provider_auth_failed"
    return "provider_error" if status >= 500 else "upstream_refused"


def lost_usage(request: Request, approach: Approach) -> TokenUsage:
    """What a provider may charge for a call whose answer was not waited for, as an estimate: what was sent, and where a
    hard budget has to hold, the most that it may have used.

    What was sent from its size alone, which cannot fail: a translated body need not keep to the bounds of a client's.
    """
    return request.at_most or TokenUsage(input=tokens.rough(len(approach.body)), estimated=True)
