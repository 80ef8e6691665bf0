"""What requests take of all that a proxy holds of an organization's limits: without a word to Redis."""

from __future__ import annotations

from watchllm.limits.subject import Subject
from watchllm.stores.redis.limits_account import Account, Holding


def has_room(account: Account, subject: Subject, counted: bool, now: float) -> bool:
    """Whether a request may enter by what is held here."""
    holdings = account.holdings
    for bounds in subject.bounds:
        holding = holdings.get(bounds.id)
        if holding is None or (bounds.needs_history and bounds.id not in account.known):
            return False
        holding.seen += 1
        if bounds.requests is not None:
            of_it = holding.slice
            if of_it is None or of_it.left <= 0 or of_it.until <= now:
                return False
        if bounds.concurrent is not None and holding.used_places >= min(holding.places, bounds.concurrent):
            return False
        if bounds.monthly is not None and counted and holding.used_requests >= holding.requests:
            return False
    return True


def begin(account: Account, subject: Subject, counted: bool) -> None:
    """A request has entered: what it holds until it ends is in use."""
    for bounds in subject.bounds:
        of_places, of_month = bounds.concurrent is not None, counted and bounds.monthly is not None
        if not (of_places or of_month):
            continue
        holding = account.holdings[bounds.id]
        if of_places:
            holding.used_places = used = holding.used_places + 1
            if used > holding.most_places:
                holding.most_places = used
        if of_month:
            holding.used_requests += 1
        account.change(bounds.id)


def granted(holding: Holding, *, nanos: int = 0, requests: int = 0, places: int = 0) -> None:
    """Redis has it, and so do we."""
    holding.nanos += nanos
    holding.requests += requests
    holding.places += places
    told = holding.told
    holding.told = (told[0] + nanos, told[1] + requests, told[2] + places, *told[3:])
