"""Identifiers: UUIDv7 (RFC 9562, section 5.7) in 32 hex digits behind a type prefix, such as `req_` or `prj_`."""

import os
import struct
import time
from collections.abc import Iterator

REQUEST = "req_"
PROJECT = "prj_"
ORGANIZATION = "org_"
KEY = "key_"
PROVIDER_KEY = "pvk_"
USER = "usr_"

# The system's random bytes, fetched for many request ids at once: one call each would be half of what an id costs.
_PAIR = struct.Struct("=QQ")
_IDS_PER_FETCH = 256
_ahead: Iterator[tuple[int, ...]] = iter(())


def reseed() -> None:
    """Forget what was fetched ahead: in a forked child, so that two workers never mint the same ids."""
    global _ahead
    _ahead = iter(())


def new_id(prefix: str) -> str:
    """A new id of an object that people manage; its random part comes from the system's generator."""
    return prefix + _uuid7_hex(time.time_ns() // 1_000_000, *_PAIR.unpack(os.urandom(_PAIR.size)))


def new_request_id(unix_ms: int | None = None) -> str:
    """A new request id, of the given or the present time; 0.6 µs."""
    for first, second in _ahead:
        high = (unix_ms or time.time_ns() // 1_000_000) << 16 | 0x7000 | first & 0xFFF
        return f"req_{high:016x}{0x8000000000000000 | second & 0x3FFFFFFFFFFFFFFF:016x}"
    _fetch()
    return new_request_id(unix_ms)


def _uuid7_hex(unix_ms: int, first: int, second: int) -> str:
    high = (unix_ms & 0xFFFFFFFFFFFF) << 16 | 0x7000 | first & 0xFFF
    low = 0x8000000000000000 | second & 0x3FFFFFFFFFFFFFFF
    return f"{high:016x}{low:016x}"


def _fetch() -> None:
    global _ahead
    _ahead = _PAIR.iter_unpack(os.urandom(_PAIR.size * _IDS_PER_FETCH))


def has_form(value: str, prefix: str) -> bool:
    """Whether `value` looks like an id of this type (it need not exist)."""
    digits = value.removeprefix(prefix)
    return value.startswith(prefix) and len(digits) == 32 and all(c in "0123456789abcdef" for c in digits)
