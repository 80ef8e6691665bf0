"""What is said to a request that may not go on."""

from __future__ import annotations

from math import ceil

from watchllm.limits.subject import Bounds

RATE, CONCURRENCY, QUOTA, BUDGET = "rate_limit_exceeded", "concurrency_exceeded", "quota_exceeded", "insufficient_quota"


class Exceeded(Exception):
    """A bound that was reached: the contract's `code`, a `message` that says what to do, and the seconds after which
    there is room again, None = not by waiting."""

    def __init__(self, code: str, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


def requests(bounds: Bounds, wait: float | None) -> Exceeded:
    if wait is None:
        return Exceeded(RATE, f"This {bounds.kind} may make no requests: its requests_per_minute is 0.", None)
    return Exceeded(
        RATE,
        f"This {bounds.kind} may make {bounds.requests} requests a minute, and has. Try again in {ceil(wait)} s, or "
        "have requests_per_minute raised.",
        wait,
    )


def upstream(bounds: Bounds, wait: float | None) -> Exceeded:
    if wait is None:
        return Exceeded(RATE, f"This {bounds.kind} may call no provider: its upstream_per_minute is 0.", None)
    return Exceeded(
        RATE,
        f"This {bounds.kind} may make {bounds.upstream} calls a minute to providers, and has. Try again in "
        f"{ceil(wait)} s; what is in the cache is answered meanwhile.",
        wait,
    )


def tokens(bounds: Bounds, asked: int, wait: float | None) -> Exceeded:
    if wait is None:
        return Exceeded(
            RATE,
            f"This request may use {asked} tokens, and this {bounds.kind} {bounds.tokens} a minute. Shorten it, bound "
            "its answer (max_tokens), or have tokens_per_minute raised.",
            None,
        )
    return Exceeded(
        RATE,
        f"This {bounds.kind} may use {bounds.tokens} tokens a minute, of which too few are left for the {asked} that "
        f"this request may use. Try again in {ceil(wait)} s.",
        wait,
    )


def concurrent(bounds: Bounds) -> Exceeded:
    return Exceeded(
        CONCURRENCY,
        f"This {bounds.kind} may have {bounds.concurrent} requests under way at once, and has. Try again when one has "
        "ended.",
        1 if bounds.concurrent else None,
    )


def quota(bounds: Bounds, wait: float) -> Exceeded:
    return Exceeded(
        QUOTA,
        f"The {bounds.monthly} requests that this {bounds.kind} may make in a month are used up. Have monthly_requests "
        "raised, change the plan, or wait for the next month (UTC).",
        wait,
    )


def quota_held(bounds: Bounds) -> Exceeded:
    """The rest of the quota is held by requests under way, which need not all count."""
    return Exceeded(
        CONCURRENCY,
        f"What is left of the {bounds.monthly} requests that this {bounds.kind} may make in a month is held by "
        "requests under way. Try again when one has ended.",
        1,
    )


def budget_held(bounds: Bounds, period: str) -> Exceeded:
    """What is left of the budget would do, but calls under way may use it."""
    return Exceeded(
        CONCURRENCY,
        f"What is left of the budget of this {bounds.kind} (budget_usd_{period}) is held by calls under way, for "
        "the most that they may cost. Try again when one has ended, or bound answers (max_tokens).",
        1,
    )


def budget(bounds: Bounds, period: str, wait: float | None) -> Exceeded:
    way_out = "raised, or bound the answer (max_tokens)"
    if wait is not None:
        way_out = f"raised, bound the answer (max_tokens), or wait for the next {period} (UTC)"
    return Exceeded(
        BUDGET,
        f"The budget of this {bounds.kind} (budget_usd_{period}) does not cover what this request may cost. Have it "
        f"{way_out}.",
        wait,
    )
