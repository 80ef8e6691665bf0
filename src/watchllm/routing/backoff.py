"""How long to wait before a call is tried again.

Full jitter: a delay drawn evenly between 0 and an exponentially growing bound, which spreads the clients that failed
together (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). What the provider asks for with
`Retry-After` is waited for, within a bound; a provider that asks for more has told us to go elsewhere.
"""

from collections.abc import Callable, Iterable
from datetime import UTC
from math import isfinite

BASE_SECONDS = 0.25
CAP_SECONDS = 8.0
MAX_RETRY_AFTER_SECONDS = 20.0
_MAX_DOUBLINGS = 32


def delay(
    tries: int, *, random: Callable[[], float], retry_after: float | None = None, left: float | None = None
) -> float | None:
    """Seconds to wait before the next try; None = don't try again.

    `tries` counts those already made at this target, from 1; `random` gives numbers from 0 up to 1; `retry_after` is
    what the provider asked for and `left` what is left of the time allowed, both in seconds, None = nothing known.
    Never waits for more than is left, nor for less than the provider asked for: where that cannot both be, it is None.
    """
    bound: float = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(max(tries - 1, 0), _MAX_DOUBLINGS))
    asked = max(retry_after or 0.0, 0.0)
    if asked > MAX_RETRY_AFTER_SECONDS or (left is not None and asked >= left):
        return None
    # On top of what was asked for: all who were told the same second would otherwise come back in it.
    jitter = random() * (bound if asked == 0.0 else min(bound, asked))
    if left is not None and asked + jitter >= left:
        # Half of the time is left for the try itself.
        jitter = min(jitter, (left - asked) / 2)
    return asked + jitter


def retry_after(headers: Iterable[tuple[bytes, bytes]], now: float) -> float | None:
    """The seconds that an answer's headers ask to wait, 0 or more; None = nothing that can be understood.

    `retry-after-ms` (OpenAI, Azure) is more exact and comes first; `retry-after` is whole or broken seconds, or an HTTP
    date (RFC 9110, section 10.2.3), counted from `now` in epoch seconds. Names are in lower case.
    """
    asked: float | None = None
    for name, value in headers:
        if name == b"retry-after-ms":
            milliseconds = _number(value)
            if milliseconds is not None:
                return milliseconds / 1000
        elif name == b"retry-after" and asked is None:
            asked = _number(value)
            if asked is None:
                asked = _until(value, now)
    return asked


def _number(value: bytes) -> float | None:
    text = value.strip()
    # What float() takes besides (signs, exponents, underscores, nan) is no delay.
    if not text or len(text) > 20 or not text.replace(b".", b"", 1).isdigit():
        return None
    number = float(text)
    return number if isfinite(number) else None


def _until(value: bytes, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # seldom needed, and every start would pay for it

    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
        # Without a zone it is UTC: HTTP knows no other.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(seconds - now, 0.0)
