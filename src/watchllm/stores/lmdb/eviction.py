"""What leaves the exact cache when its bytes are spent, and what leaves it for age.

Over the bound, entries that have expired go first; then projects are levelled: whoever holds most gives its least
recently used entries until it holds no more than the next, and so on, so that no project is pushed below its equal
share by another's traffic.
"""

from watchllm.stores.lmdb.cache_session import WriteSession
from watchllm.stores.lmdb.derived_file import U64

STALE_KEPT_MS = 86_400_000
"""How long an expired entry is kept for `stale-if-error`."""

_SCAN = 256


def evict(session: WriteSession, target_bytes: int, now_ms: int, limit: int | None = None) -> tuple[int, int]:
    """Delete until the sum of all projects is at most `target_bytes`, or `limit` entries are gone.

    Returns how many were deleted for being expired and how many for being least recently used.
    """
    expired = _drop_expired(session, target_bytes, now_ms, limit)
    if session.bytes <= target_bytes or (limit is not None and expired >= limit):
        return expired, 0
    evicted = 0
    for project, allowed in _levels(session.project_bytes(), session.bytes - target_bytes):
        room = None if limit is None else limit - expired - evicted
        evicted += _shrink(session, project, allowed, room)
        if limit is not None and expired + evicted >= limit:
            break
    return expired, evicted


def sweep(session: WriteSession, now_ms: int, limit: int) -> int:
    """Delete up to `limit` entries that expired more than a day ago; how many."""
    stale = session.expired_before(now_ms - STALE_KEPT_MS, limit)
    for entry_id in stale:
        session.delete(entry_id)
    return len(stale)


def is_stale(expiry_key: bytes, now_ms: int) -> bool:
    """Whether an entry with this key in `expiry` expired too long ago to be of use."""
    return expiry_key < U64.pack(max(now_ms - STALE_KEPT_MS, 0))


def _drop_expired(session: WriteSession, target_bytes: int, now_ms: int, limit: int | None) -> int:
    dropped = 0
    while session.bytes > target_bytes and (limit is None or dropped < limit):
        candidates = session.expired_before(now_ms, _SCAN if limit is None else min(_SCAN, limit - dropped))
        if not candidates:
            break
        for entry_id in candidates:
            session.delete(entry_id)
            dropped += 1
            if session.bytes <= target_bytes:
                break
    return dropped


def _levels(held: dict[bytes, int], surplus: int) -> list[tuple[bytes, int]]:
    """Which projects must shrink so that `surplus` bytes go and the largest are level, and what each may keep."""
    largest_first = sorted(held.items(), key=lambda item: item[1], reverse=True)
    above = 0
    for count, (_, size) in enumerate(largest_first, start=1):
        above += size
        level = max((above - surplus) // count, 0)
        following = largest_first[count][1] if count < len(largest_first) else 0
        if level >= following:
            return [(project, level) for project, _ in largest_first[:count]]
    return []


def _shrink(session: WriteSession, project: bytes, allowed: int, limit: int | None) -> int:
    """Delete the project's least recently used entries until it holds at most `allowed` bytes; how many."""
    held = session.held_by(project)
    gone = 0
    while held > allowed and (limit is None or gone < limit):
        candidates = session.least_recent(project, _SCAN)
        if not candidates:
            break
        for entry_id in candidates:
            meta = session.delete(entry_id)
            assert meta is not None  # Indexes change in the same transactions as entries.
            held -= meta.cost
            gone += 1
            if held <= allowed or gone == limit:
                break
    return gone
