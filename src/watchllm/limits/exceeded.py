"""What is said to a request that may not go on."""

from __future__ import annotations

from math import ceil

from watchllm.limits.subject import Bounds

RATE, CONCURRENCY, QUOTA, BUDGET = "rate_limit_exceeded", "concurrency_exceeded", "quota_exceeded", "insufficient_quota"


class Exceeded(Exception):
    """A bound that was reached: the contract's `code`, a `message` that says what to do, and the seconds after which
    there is room again, None = not by waiting. `to_embed` is the message for a request whose answer has no tokens that
    could be bounded, where it is another one."""

    def __init__(self, code: str, message: str, retry_after: float | None, to_embed: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.to_embed = message if to_embed is None else to_embed


def requests(bounds: Bounds, wait: float | None) -> Exceeded:
    limit = (bounds.whole or bounds).requests
    if wait is None:
        return Exceeded(RATE, f"This {bounds.kind} may make no requests: its requests_per_minute is {limit}.", None)
    return Exceeded(
        RATE,
        f"This {bounds.kind} may make {limit} requests a minute, and has{_share(bounds, bounds.requests)}. Try "
        f"again in {ceil(wait)} s, or have requests_per_minute raised.",
        wait,
    )


def upstream(bounds: Bounds, wait: float | None) -> Exceeded:
    limit = (bounds.whole or bounds).upstream
    if wait is None:
        return Exceeded(RATE, f"This {bounds.kind} may call no provider: its upstream_per_minute is {limit}.", None)
    return Exceeded(
        RATE,
        f"This {bounds.kind} may make {limit} calls a minute to providers, and has{_share(bounds, bounds.upstream)}. "
        f"Try again in {ceil(wait)} s; what is in the cache is answered meanwhile.",
        wait,
    )


def tokens(bounds: Bounds, asked: int, wait: float | None) -> Exceeded:
    limit = (bounds.whole or bounds).tokens
    if wait is None:
        share = _share(bounds, bounds.tokens)
        says = f"This request may use {asked} tokens, and this {bounds.kind} {limit} a minute{share}."
        return Exceeded(
            RATE,
            f"{says} Shorten it, bound its answer (max_tokens), or have tokens_per_minute raised.",
            None,
            f"{says} Send fewer or shorter inputs at once, or have tokens_per_minute raised.",
        )
    return Exceeded(
        RATE,
        f"This {bounds.kind} may use {limit} tokens a minute{_share(bounds, bounds.tokens)}, of which too few are left "
        f"for the {asked} that this request may use. Try again in {ceil(wait)} s.",
        wait,
    )


def concurrent(bounds: Bounds) -> Exceeded:
    limit = (bounds.whole or bounds).concurrent
    return Exceeded(
        CONCURRENCY,
        f"This {bounds.kind} may have {limit} requests under way at once, and has{_share(bounds, bounds.concurrent)}. "
        "Try again when one has ended.",
        1 if limit else None,
    )


def quota(bounds: Bounds, wait: float) -> Exceeded:
    limits = bounds.whole or bounds
    paid = (limits.monthly or 0) - (limits.quota or 0)
    if paid > 0:
        used = (
            f"The {limits.quota} requests that this {bounds.kind} may make in a month are used up, and so is "
            f"overage_cap_usd, for the {paid} beyond them{_share(bounds, None)}. Have the cap"
        )
    else:
        used = (
            f"The {limits.quota} requests that this {bounds.kind} may make in a month are used "
            f"up{_share(bounds, None)}. Have monthly_requests"
        )
    return Exceeded(QUOTA, f"{used} raised, change the plan, or wait for the next month (UTC).", wait)


def quota_held(bounds: Bounds) -> Exceeded:
    """The rest of the quota is held by requests under way, which need not all count."""
    limits = bounds.whole or bounds
    return Exceeded(
        CONCURRENCY,
        f"What is left of the {limits.monthly} requests that this {bounds.kind} may make in a month is held by "
        f"requests under way{_share(bounds, None)}. Try again when one has ended.",
        1,
    )


def budget_held(bounds: Bounds, period: str) -> Exceeded:
    """What is left of the budget would do, but calls under way may use it."""
    says = (
        f"What is left of the budget of this {bounds.kind} (budget_usd_{period}) is held by calls under way, for the "
        "most that they may cost. Try again when one has ended"
    )
    return Exceeded(CONCURRENCY, f"{says}, or bound answers (max_tokens).", 1, f"{says}.")


def budget(bounds: Bounds, period: str, wait: float | None) -> Exceeded:
    says = f"The budget of this {bounds.kind} (budget_usd_{period}) does not cover what this request may cost. Have it"
    if wait is None:
        return Exceeded(
            BUDGET,
            f"{says} raised, or bound the answer (max_tokens).",
            None,
            f"{says} raised, or send fewer or shorter inputs.",
        )
    rest = f"or wait for the next {period} (UTC)."
    return Exceeded(
        BUDGET,
        f"{says} raised, bound the answer (max_tokens), {rest}",
        wait,
        f"{says} raised, send fewer or shorter inputs, {rest}",
    )


def _share(bounds: Bounds, share: int | None) -> str:
    """What is said besides where these are but one proxy's share."""
    if bounds.whole is None:
        return ""
    part = "a share" if share is None else f"a share of {share}"
    return f" (the limits cannot be looked up now: meanwhile each proxy keeps {part} by itself)"
