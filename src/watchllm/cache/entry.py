"""A stored answer and the port of the store that keeps it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from watchllm.domain.money import Nanos
from watchllm.domain.usage import TokenUsage

NEVER = 0
"""`expires_ms` of an entry that does not expire."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One complete answer, in the non-streamed wire form of its `dialect` (`body`, as bytes of JSON; `chat` is OpenAI's
    own of every kind); or one item of an embeddings answer, as `providers.openai.embeddings` packs its vector.

    Times in epoch milliseconds; `kind` is the endpoint family (`generate`, `completions`, `embeddings`); `cost` is what
    the answer cost when it was bought, None = unpriced; `key_id` names the project key that caused it.
    """

    created_ms: int
    expires_ms: int
    kind: str
    provider: str
    model: str
    usage: TokenUsage | None
    cost: Nanos | None
    key_id: str
    body: bytes
    dialect: str = "chat"

    def is_fresh(self, now_ms: int) -> bool:
        return self.expires_ms == NEVER or now_ms < self.expires_ms


class InvalidationFilter(msgspec.Struct, frozen=True, array_like=True):
    """Which entries to forget; all given conditions hold together. `before`/`after` are epoch milliseconds of storing,
    `keys` those of entries, `source` the id of the project key that caused one.

    With nothing given it matches every entry.
    """

    model: str | None = None
    kind: str | None = None
    before_ms: int | None = None
    after_ms: int | None = None
    keys: tuple[bytes, ...] | None = None
    source: str | None = None

    def matches(
        self,
        entry_model: str,
        entry_kind: str,
        created_ms: int,
        key: bytes | None = None,
        source: str | None = None,
    ) -> bool:
        """Whether such an entry is meant. A `key` or `source` that is not known, None, may be the one that is."""
        return (
            (self.model is None or self.model == entry_model)
            and (self.kind is None or self.kind == entry_kind)
            and (self.before_ms is None or created_ms < self.before_ms)
            and (self.after_ms is None or created_ms > self.after_ms)
            and (self.keys is None or key is None or key in self.keys)
            and (self.source is None or source is None or self.source == source)
        )


class CacheStats(msgspec.Struct, frozen=True):
    """What a project holds: number of entries and bytes, by kind, and the bound that applies."""

    entries: int
    bytes: int
    by_kind: dict[str, int]
    max_bytes: int


class Answers(Protocol):
    """Where answers are kept. `project` is a 16-byte partition that comes from the API key, `key` the 32-byte digest.

    `get` is synchronous and takes microseconds; `put` returns at once, is visible to `get` of the same process at once
    and to others when its batch is committed, milliseconds later.
    """

    is_remote: bool
    """Whether others may have stored what `get` does not find before it was fetched."""

    def get(self, project: bytes, key: bytes) -> Entry | None:
        """The entry, fresh or expired (the caller decides), or None."""
        ...

    def fetch(self, project: bytes, keys: Sequence[bytes], done: Callable[[], None]) -> bool:
        """Bring to hand what is stored under `keys` (64 at most): `done` is called when it is there, or cannot be had
        in time, and inside that call `get` finds it. False = nothing has to be waited for; `done` is not called."""
        ...

    def put(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> None:
        """Store, unless an invalidation that matches came after `begun_ms`, when the call upstream began."""
        ...

    def remove(self, project: bytes, key: bytes) -> None: ...

    def invalidated_since(self, project: bytes, model: str, kind: str, begun_ms: int, key: bytes | None = None) -> bool:
        """Whether an invalidation that may match such an entry, at `key` where it is known, came since."""
        ...

    async def invalidate(self, project: bytes, what: InvalidationFilter) -> int:
        """Forget all that matches, pending writes included; the number forgotten. In force when it returns."""
        ...

    async def stats(self, project: bytes) -> CacheStats: ...


class ExactStore(Answers, Protocol):
    """As who opened it sees it."""

    def flush(self) -> None:
        """Wait until everything put so far is committed (used at shutdown and by tests)."""
        ...

    def close(self) -> None: ...
