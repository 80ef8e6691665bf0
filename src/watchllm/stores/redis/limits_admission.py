"""A request that entered under shared limits, and what it uses of what this process holds."""

from __future__ import annotations

from watchllm.limits.limiter import NOTHING, Standings
from watchllm.limits.spending import Moment
from watchllm.limits.subject import Subject
from watchllm.stores.redis.limits_account import Account
from watchllm.stores.redis.limits_outage import Share


class SharedAdmission:
    """A request that entered, given back by `settle`, once. `share`: it was admitted while Redis could not be asked."""

    __slots__ = (
        "account",
        "at",
        "counted",
        "ended",
        "has_reserved",
        "holds",
        "reserved",
        "share",
        "standings",
        "subject",
        "untold",
        "uses",
    )

    def __init__(self, subject: Subject, account: Account, at: Moment, counted: bool) -> None:
        self.subject = subject
        self.account = account
        self.at = at
        self.counted = counted
        self.ended = False
        self.holds = False
        self.has_reserved = False
        self.share: Share | None = None
        self.standings: Standings | None = None
        self.reserved = NOTHING
        self.uses: tuple[tuple[str, str, int, int], ...] = ()
        """Of minutes, by `reserve`: kind, id, bucket, amount."""
        self.untold: tuple[tuple[str, str, int, int], ...] = ()
        """The same of a share, of which Redis is told later: kind, id, amount, the number of `Account.use`."""


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
    account.under_way += 1
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
