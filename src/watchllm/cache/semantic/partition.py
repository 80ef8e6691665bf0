"""The stored prompts of one partition as a process has them in memory: vectors to search, and what decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from watchllm.cache.entry import NEVER
from watchllm.cache.semantic.index import Background, Index

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors


class Prompt(NamedTuple):
    """What is known of a stored prompt beside its vector. Times in epoch milliseconds; `features` are encoded, which
    takes a tenth of the memory and half a microsecond to undo."""

    created_ms: int
    expires_ms: int
    features: bytes

    def is_fresh(self, now_ms: int) -> bool:
        return self.expires_ms == NEVER or now_ms < self.expires_ms


class Found(NamedTuple):
    similarity: float
    key: bytes
    prompt: Prompt


class Partition:
    """Prompts by the key of their answer's entry; beyond `max_entries` the one that came first goes."""

    __slots__ = ("_dimensions", "_index", "_max_entries", "_prompts")

    def __init__(self, dimensions: int, max_entries: int, background: Background) -> None:
        self._dimensions = dimensions
        self._max_entries = max_entries
        self._index = Index(dimensions, max_entries=max_entries, background=background)
        self._prompts: dict[bytes, Prompt] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def merge_error(self) -> str | None:
        return self._index.merge_error

    @property
    def is_settled(self) -> bool:
        """Whether every vector is found."""
        return self._index.is_settled

    def get(self, key: bytes) -> Prompt | None:
        return self._prompts.get(key)

    def put(self, key: bytes, vector: Vectors, prompt: Prompt) -> None:
        """Add it, or take it for the one that is known under this key. Raises ValueError for what is no vector here."""
        if key not in self._prompts:
            if len(self._prompts) >= self._max_entries:
                self.remove_first()
            self._index.add(key, vector)
        self._prompts[key] = prompt

    def remove_first(self) -> None:
        """Remove the one that came first."""
        self.remove(next(iter(self._prompts)))

    def remove(self, key: bytes) -> None:
        if self._prompts.pop(key, None) is not None:
            self._index.remove(key)

    def nearest(self, vector: Vectors, limit: int) -> list[Found]:
        """Up to `limit`, nearest first."""
        return [Found(similarity, key, self._prompts[key]) for similarity, key in self._index.search(vector, limit)]
