"""Moments as people and programs write them: ISO 8601 in UTC, and how long until something ends."""

from datetime import UTC, datetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 40
_LAST = 253_402_300_799
"""The last second of the year 9999, which is the last that can be written."""


def timestamp(epoch_ms: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if epoch_ms is None:
        return None
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if epoch_ms % 1000 else "seconds").replace("+00:00", "Z")


def expiry(text: str, now: float) -> int:
    """When `90d`, `12h`, `30m` from `now` or a date ends, in epoch seconds; 0 = never, for an empty text.

    Raises ValueError saying what is expected.
    """
    if not text:
        return 0
    problem = ValueError(f"{text[:_LONGEST]!r}: expected 90d, 12h, 30m or a date such as 2030-01-31")
    if text[-1] in _UNITS and text[:-1].isdecimal() and len(text) < 10:
        ends = int(now) + int(text[:-1]) * _UNITS[text[-1]]
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise problem from None
        ends = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if ends > _LAST:
        raise problem
    return ends
