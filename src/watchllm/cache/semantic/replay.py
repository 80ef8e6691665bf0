"""Replays a log of prompts through an empty cache: what would have been served, and what it would have saved."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy

from watchllm.cache.semantic.decide import Candidate, Decision, Policy, decide
from watchllm.cache.semantic.embedder import Embedder
from watchllm.cache.semantic.features import Features, features
from watchllm.cache.semantic.index import Index
from watchllm.cache.semantic.logged import Logged

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

NEVER_EXPIRES: Final = -1
MAX_ENTRIES: Final = 50_000
MAX_BYTES: Final = 256 * 1024 * 1024
"""Of stored prompts: beyond either, the oldest goes, as in a cache that is full."""
_MOST_COMPARED: Final = 8
"""Stored prompts that one question is compared with, the nearest."""
_FEW: Final = 64
"""Prompts of one context up to which no index is made: most contexts have one."""
_ENTRY_BYTES: Final = 1_600
_DAY: Final = 86_400

_decode = msgspec.msgpack.Decoder(Features).decode
_encode = msgspec.msgpack.Encoder().encode

Price = Callable[[str, tuple[int, int]], float | None]
"""What a model's call costs in USD, by its name and tokens; None = nobody knows."""


class Stored(NamedTuple):
    """A prompt whose answer would be in the cache. `features` is empty where there is no text to compare."""

    line: int
    offset: int
    time: float | None
    features: bytes


class Served(NamedTuple):
    """An answer that would have been served by meaning. `saved` in USD, None if nobody knows."""

    asked: Logged
    stored: Stored
    decision: Decision
    saved: float | None


class Totals(msgspec.Struct):
    """Of a replay. `not_compared`: no text of a user at the end, or one that is too long. Money in USD."""

    requests: int = 0
    exact_hits: int = 0
    semantic_hits: int = 0
    not_compared: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    saved_usd_semantic: float = 0.0
    without_cost: int = 0
    forgotten: int = 0


class Replay:
    """An empty cache of one project. `totals` is up to date after each request that `serve` took.

    `ttl` in seconds holds between lines that tell their time; -1 = for ever. What is asked of today is only served
    where both lines tell their time.
    """

    def __init__(
        self,
        embedder: Embedder,
        policy: Policy,
        price: Price,
        *,
        ttl: int,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.totals = Totals()
        self._embedder, self._policy, self._price, self._ttl = embedder, policy, price, ttl
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._stored: OrderedDict[bytes, tuple[bytes, Stored]] = OrderedDict()
        self._bytes = 0
        self._contexts: dict[bytes, _Context] = {}

    def serve(self, log: Iterable[Logged]) -> Iterator[Served]:
        """Ask for each request in turn; what would have been served by meaning, as it is found."""
        for asked in log:
            served = self._one(asked)
            if served is not None:
                yield served

    def _one(self, asked: Logged) -> Served | None:
        totals = self.totals
        totals.requests += 1
        cost = asked.cost
        if cost is None and asked.tokens is not None:
            cost = self._price(asked.model, asked.tokens)
        totals.cost_usd += cost or 0.0
        totals.without_cost += cost is None
        key = blake2b(asked.context + (asked.prompt or "").encode(errors="surrogatepass"), digest_size=16).digest()
        there = self._stored.get(key)
        if there is not None:
            if self._is_fresh(there[1], asked):
                totals.exact_hits += 1
                totals.saved_usd += cost or 0.0
                return None
            self._forget(key)
        found = None if asked.prompt is None else features(asked.prompt)
        if asked.prompt is None or found is None or found.too_long or not found.keys:
            totals.not_compared += 1
            self._keep(key, asked, None, b"")
            return None
        vector = self._embedder.embed([asked.prompt])[0]
        served = self._nearest(asked, found, vector, cost)
        if served is None:
            self._keep(key, asked, vector, _encode(found))
            return None
        totals.semantic_hits += 1
        totals.saved_usd += cost or 0.0
        totals.saved_usd_semantic += cost or 0.0
        return served

    def _nearest(self, asked: Logged, question: Features, vector: Vectors, cost: float | None) -> Served | None:
        context = self._contexts.get(asked.context)
        for similarity, key in context.search(vector, _MOST_COMPARED) if context is not None else ():
            stored = self._stored[key][1]
            if not self._is_fresh(stored, asked):
                continue
            candidate = Candidate(similarity, _decode(stored.features))
            decision = decide(question, candidate, self._policy, same_day=_same_day(stored, asked))
            if decision.hit:
                return Served(asked, stored, decision, cost)
        return None

    def _is_fresh(self, stored: Stored, asked: Logged) -> bool:
        if self._ttl == NEVER_EXPIRES or stored.time is None or asked.time is None:
            return True
        return asked.time < stored.time + self._ttl

    def _keep(self, key: bytes, asked: Logged, vector: Vectors | None, encoded: bytes) -> None:
        self._stored[key] = (asked.context, Stored(asked.line, asked.offset, asked.time, encoded))
        self._bytes += len(encoded) + _ENTRY_BYTES
        if vector is not None:
            context = self._contexts.get(asked.context)
            if context is None:
                context = self._contexts[asked.context] = _Context(self._max_entries)
            context.add(key, vector)
        while len(self._stored) > self._max_entries or self._bytes > self._max_bytes:
            self._forget(next(iter(self._stored)))
            self.totals.forgotten += 1

    def _forget(self, key: bytes) -> None:
        name, stored = self._stored.pop(key)
        self._bytes -= len(stored.features) + _ENTRY_BYTES
        context = self._contexts.get(name)
        if context is not None and stored.features:
            context.remove(key)
            if not context:
                del self._contexts[name]


class _Context:
    """The vectors of prompts asked in one context: compared one by one while they are few, then in an index."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._few: dict[bytes, Vectors] = {}
        self._index: Index | None = None

    def __len__(self) -> int:
        return len(self._few) if self._index is None else len(self._index)

    def add(self, key: bytes, vector: Vectors) -> None:
        if self._index is not None:
            self._index.add(key, vector)
            return
        self._few[key] = vector
        if len(self._few) > _FEW:
            self._index = Index(len(vector), max_entries=self._max_entries + 1, background=lambda merge: merge())
            for one, its in self._few.items():
                self._index.add(one, its)
            self._few = {}

    def remove(self, key: bytes) -> None:
        if self._index is None:
            self._few.pop(key, None)
        else:
            self._index.remove(key)

    def search(self, vector: Vectors, limit: int) -> list[tuple[float, bytes]]:
        """Up to `limit` pairs (cosine, key), nearest first."""
        if self._index is not None:
            return self._index.search(vector, limit)
        return sorted(((float(numpy.dot(its, vector)), key) for key, its in self._few.items()), reverse=True)[:limit]


def _same_day(stored: Stored, asked: Logged) -> bool:
    return stored.time is not None and asked.time is not None and stored.time // _DAY == asked.time // _DAY
