"""What follows from how one call upstream went, before the first byte of its answer was sent to the client.

    what came                                     verdict     why
    1xx–3xx, 2xx, 4xx not named below             ACCEPT      the answer, or the caller's own mistake: passed on
    401, 402, 403                                 NEXT_KEY    this key is refused or has no credit; another may work
    429                                           NEXT        this key is at its limit: the next one, else a provider
    408, 500, 502, 503, 504, 529                  RETRY       the provider's trouble, which passes
    connect failed, connection lost, time-out     RETRY       likewise
    not HTTP, or beyond a bound                   RETRY       a broken hop in between, most often
    connections all taken here                    NEXT        no fault of the provider, and waiting was tried
    address refused (private)                     NEXT        trying again would not change it

529 is Anthropic's "overloaded". Where no candidate is left the last answer is passed on. After the first byte nothing
is tried again: what the client has read cannot be taken back.
"""

from enum import Enum

from watchllm.wire.types import AddressRefused, ConnectFailed, PoolFull, TimedOut, WireError


class Verdict(Enum):
    """What to do next. Values are for logs."""

    ACCEPT = "accept"
    """Pass this answer on."""

    NEXT_KEY = "next_key"
    """Go on at once with the next candidate; this key's refusal is told to the project (401 and 403)."""

    NEXT = "next"
    """Go on at once with the next candidate; without one, pass the answer on."""

    RETRY = "retry"
    """Try the same target again after a back-off, as often as the route allows; then as NEXT."""


class Health(Enum):
    """What a call tells a circuit breaker of its target."""

    WORKED = "worked"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    NOTHING = "nothing"
    """It says nothing of the target, such as a limit of ours."""


_RETRIED = frozenset((408, 500, 502, 503, 504, 529))
_REFUSED = frozenset((401, 402, 403))


def of_status(status: int) -> Verdict:
    """The verdict on an answer's status."""
    if status in _RETRIED:
        return Verdict.RETRY
    if status in _REFUSED:
        return Verdict.NEXT_KEY
    return Verdict.NEXT if status == 429 else Verdict.ACCEPT


def of_error(error: WireError) -> Verdict:
    """The verdict on a call that failed before its answer's first byte."""
    return Verdict.NEXT if isinstance(error, (AddressRefused, PoolFull)) else Verdict.RETRY


def health_of_status(status: int) -> Health:
    """A provider that answers 4xx or 429 is at work; 5xx (529 too) is a failure."""
    return Health.FAILED if status >= 500 else Health.WORKED


def health_of_error(error: WireError) -> Health:
    """Connect failures, broken connections and time-outs count; what this gateway refused itself does not."""
    if isinstance(error, (AddressRefused, PoolFull)):
        return Health.NOTHING
    if isinstance(error, TimedOut):
        return Health.TIMED_OUT
    return Health.FAILED


def is_sent(error: WireError) -> bool:
    """Whether the request may have reached the provider, which then may charge for it."""
    return not (
        isinstance(error, (ConnectFailed, PoolFull)) or (isinstance(error, TimedOut) and error.phase == "connect")
    )
