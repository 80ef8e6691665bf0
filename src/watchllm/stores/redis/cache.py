"""The exact cache that all proxies share, with a small tier of this process's own in front.

`get` looks into that tier only; `fetch` brings there what others stored, in one round trip. A store that cannot be
reached in time is a miss, never a wait. What the tier holds is given out only while this process is known to hear of
invalidations: else it might serve what was to be forgotten. The layout, and what generations are: cache_layout.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import msgspec

from watchllm.cache.entry import NEVER, CacheStats, Entry, InvalidationFilter
from watchllm.stores.redis import purge
from watchllm.stores.redis.cache_layout import (
    GENERATION,
    PUT,
    REMOVE,
    REPLACED,
    Record,
    entry_key,
    generation_of,
    key_of,
    packed,
    record_of,
    unpacked,
)
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.fetching import Stretch
from watchllm.stores.redis.generations import Generations
from watchllm.stores.redis.index_sweep import IndexSweep
from watchllm.stores.redis.link import Unreachable, encode
from watchllm.stores.redis.memory import Memory

LARGEST_ENTRY = 2 << 20
"""Bytes of the longest body that is kept: what others fetch meanwhile waits for it on the same connection."""

MOST_KEYS = 64
"""Fetched at once."""

_PROJECT_LENGTH = 16
_CLOCK_TOLERANCE_MS = 60_000
# A request may take what has expired, if the provider fails.
_STALE_MS = 3_600_000
_FOR_EVER_MS = 10 * 365 * 86_400_000
_LOOK_SECONDS = 0.4
_IN_TOUCH_SECONDS = 1.0
# Nobody waits for a put.
_PUT_SECONDS = 5.0
_SETTLE_SECONDS = 0.005
_REFUSAL_SECONDS = 60.0


class Counters(msgspec.Struct):
    """What happened in this process: `memory_hits` and `hits` of the tier and of Redis, `unanswered` look-ups that had
    no reply in time, `dropped` answers that could not be stored and `refused` ones that were not to be."""

    memory_hits: int = 0
    hits: int = 0
    misses: int = 0
    unanswered: int = 0
    puts: int = 0
    dropped: int = 0
    refused: int = 0


class RedisExactStore:
    """The port `cache.entry.Answers`. Made on the running loop; `heard…` and `listening` are for the subscription.

    What is stored goes by `bulk`, where it may take its time without making look-ups late. `now_ms` is the wall clock,
    `memory_bytes` bounds the tier.
    """

    is_remote = True

    def __init__(
        self,
        client: Client,
        bulk: Client,
        loop: asyncio.AbstractEventLoop,
        *,
        memory_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        self.counters = Counters()
        self.pending = 0
        """Puts and removals that Redis has not answered yet."""
        self.memory = Memory(memory_bytes)
        self.generations = Generations()
        self._client = client
        self._bulk = bulk
        self._process = os.urandom(8)
        self._loop = loop
        self._now_ms = now_ms
        self._brought: dict[bytes, Entry] = {}
        self._lately, self._before = Stretch(), Stretch()
        self._in_touch_until = 0.0
        self._listening = False
        self._newest_begun_ms = 0
        self._refused_until_ms = -1
        self._refusal: tuple[float, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._indexes = IndexSweep(bulk, loop)
        self._look()

    def get(self, project: bytes, key: bytes) -> Entry | None:
        """The entry if it is at hand, fresh or expired: brought by `fetch` just now, or in this process's tier."""
        entry_id = project + key
        entry = self._brought.get(entry_id) if self._brought else None
        if entry is None:
            entry = self.memory.get(entry_id) if self.is_in_touch else None
            if entry is None:
                return None
            self.counters.memory_hits += 1
        return None if entry.created_ms > self._now_ms() + _CLOCK_TOLERANCE_MS else entry

    def fetch(self, project: bytes, keys: Sequence[bytes], done: Callable[[], None]) -> bool:
        """Bring what is stored under `keys`, MOST_KEYS at most, to hand: `done` is called when it is there, and inside
        that call `get` finds it. False = all is at hand, or Redis cannot be asked: `done` will not be called."""
        if self.is_in_touch:
            # Of what has expired here, another process may have a new answer.
            keys = [key for key in keys if not self.memory.has_fresh(project + key, self._now_ms())]
            if not keys:
                return False
        wanted = [entry_key(project, key) for key in keys]

        stretch = self._lately

        def ended() -> None:
            stretch.fetching -= 1
            done()

        def on_reply(reply: Any) -> None:
            if isinstance(reply, list):
                self._look_through(project, keys, reply, ended)
            else:
                self.counters.unanswered += 1
                ended()

        command = encode("MGET", key_of(project, "g"), *wanted)
        if self._client.submit(wanted[0], command, on_reply):
            stretch.fetching += 1
            return True
        self.counters.unanswered += 1
        return False

    def put(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> None:
        """Store, unless an invalidation that matches came since `begun_ms`. What is longer than LARGEST_ENTRY takes
        away what was there instead. Lost while Redis cannot be reached."""
        if len(entry.body) > LARGEST_ENTRY:
            self.counters.dropped += 1
            self.remove(project, key)
            return
        generation, is_over = self._begun(begun_ms)
        if is_over or self.generations.voids(
            project, generation, entry.model, entry.kind, entry.created_ms, key, entry.key_id
        ):
            self.counters.refused += 1
            return
        entry_id = project + key
        self.memory.put(project, entry_id, entry, generation)
        now = self._now_ms()
        left = _FOR_EVER_MS if entry.expires_ms == NEVER else max(entry.expires_ms - now, 1) + _STALE_MS

        def on_reply(reply: Any) -> None:
            self.pending -= 1
            if reply == 1:
                self.counters.puts += 1
                self._refusal = None
                return
            self.memory.remove(project, entry_id, only=entry)
            if reply == 0:
                self.counters.refused += 1
                return
            self.counters.dropped += 1
            if isinstance(reply, hiredis.ReplyError):
                self._refusal = self._loop.time(), str(reply)

        value = packed(entry, generation)
        about = (REPLACED, entry_id + self._process)
        stored = (key, generation, value, left, entry.created_ms, entry.kind, entry.model)
        arguments = (*stored, *about, key.hex(), entry.key_id or "")
        keys = (entry_key(project, key), key_of(project, "l"), key_of(project, "x"), key_of(project, "i"))
        if self._bulk.run(PUT, keys, arguments, on_reply, _PUT_SECONDS):
            self.pending += 1
            self._indexes.has_index(project)
        else:
            self.counters.dropped += 1

    def remove(self, project: bytes, key: bytes) -> None:
        """Forget one entry."""
        self.memory.remove(project, project + key)

        def on_reply(_reply: Any) -> None:
            self.pending -= 1

        keys = (entry_key(project, key), key_of(project, "x"), key_of(project, "i"))
        if self._bulk.run(REMOVE, keys, (key, REPLACED, project + key + self._process), on_reply, _PUT_SECONDS):
            self.pending += 1

    def invalidated_since(self, project: bytes, model: str, kind: str, begun_ms: int, key: bytes | None = None) -> bool:
        """Whether an invalidation that matches such an entry, if it were created now, came at or after `begun_ms`: as
        far as is known here, and after a `fetch` that is all there was when it was made."""
        generation, is_over = self._begun(begun_ms)
        return is_over or self.generations.voids(project, generation, model, kind, self._now_ms(), key)

    async def invalidate(self, project: bytes, what: InvalidationFilter) -> int:
        """Forget all that matches, in every process; the number forgotten.

        From its first reply on, nothing that began before is stored or looked up any more by anybody; other processes'
        own tiers hear of it at once. Raises Unavailable: it is in force in this process even then.
        """
        if len(project) != _PROJECT_LENGTH:
            raise ValueError(f"a project is {_PROJECT_LENGTH} bytes, not {len(project)}")
        return await purge.invalidate(self._client, project, what, self._forget_own)

    async def stats(self, project: bytes) -> CacheStats:
        """What the project holds; `max_bytes` is Redis' own bound, 0 = it has none. Raises Unavailable."""
        return await purge.stats(self._client, project)

    def health(self) -> str | None:
        """Why the cache does not work as it should, or None."""
        if self._client.problem and not self.is_in_touch:
            return "Redis cannot be reached: what is stored is not found, and nothing is stored"
        if self._refusal is not None and self._loop.time() - self._refusal[0] < _REFUSAL_SECONDS:
            return f"new answers cannot be stored in Redis: {self._refusal[1]}"
        return None

    async def settled(self, seconds: float) -> None:
        """Until Redis has answered all that was put, or that time is over."""
        deadline = self._loop.time() + seconds
        while self.pending and self._loop.time() < deadline:  # noqa: ASYNC110  (only where a process ends)
            await asyncio.sleep(_SETTLE_SECONDS)

    def close(self) -> None:
        self._closed = True
        self._indexes.close()
        if self._timer is not None:
            self._timer.cancel()

    # What the subscription tells

    def listening(self, *, connected: bool) -> None:
        """Messages arrive from now on, or no longer. What was said meanwhile was missed."""
        self._listening = connected
        self.memory.clear()
        self.generations.forget()

    def heard(self, message: bytes) -> tuple[bytes, InvalidationFilter]:
        """An invalidation somewhere, as CHANNEL tells it: of which project, and what."""
        project, text = message[:_PROJECT_LENGTH], message[_PROJECT_LENGTH:]
        number, _, what = text.partition(b"|")
        generation = generation_of(number)
        if generation is None:
            # Which it is will be seen in Redis.
            self.memory.clear()
            self.generations.forget()
            return project, InvalidationFilter()
        record = record_of(generation, b"0|0|" + what)
        self._forget_own(project, record)
        return project, record.what

    def heard_replaced(self, message: bytes) -> None:
        """Another answer was stored, or one removed, as REPLACED tells it."""
        entry_id, process = message[: -len(self._process)], message[-len(self._process) :]
        if process != self._process:
            if self._lately.fetching or self._before.fetching:
                self._lately.outdated.add(entry_id)
            self.memory.remove(entry_id[:_PROJECT_LENGTH], entry_id)

    def _forget_own(self, project: bytes, record: Record) -> None:
        self.generations.learn(record.generation, self._moment())
        self.generations.add(project, record)
        self.memory.invalidate(project, record)

    # Looking up

    def _look_through(self, project: bytes, keys: Sequence[bytes], reply: list[Any], done: Callable[[], None]) -> None:
        generation = generation_of(reply[0] or b"0")
        if generation is None:
            self._unreadable(done)
            return
        known = self.generations.known(project)
        if generation == known or (known is None and not generation):
            if known is None:
                self.generations.replace(project, 0, (), self._moment())
            self._bring(project, keys, reply[1:], done)
            return

        def on_log(log: Any) -> None:
            if not isinstance(log, list):
                self._unreadable(done)
                return
            records = []
            for number, text in zip(log[::2], log[1::2], strict=True):
                of_record = generation_of(number)
                if of_record is None:
                    self._unreadable(done)
                    return
                records.append(record_of(of_record, text))
            for record in self.generations.replace(project, generation, records, self._moment()):
                self.memory.invalidate(project, record)
            self._bring(project, keys, reply[1:], done)

        log_key = key_of(project, "l")
        if not self._client.submit(log_key, encode("HGETALL", log_key), on_log):
            self.counters.unanswered += 1
            self._loop.call_soon(done)

    def _unreadable(self, done: Callable[[], None]) -> None:
        """What was invalidated cannot be known: nothing is found."""
        self.counters.unanswered += 1
        done()

    def _bring(
        self, project: bytes, keys: Sequence[bytes], values: Sequence[bytes | None], done: Callable[[], None]
    ) -> None:
        brought: dict[bytes, Entry] = {}
        for key, value in zip(keys, values, strict=True):
            entry = None if value is None else self._taken(project, project + key, value)
            if entry is not None:
                brought[project + key] = entry
        self.counters.hits += len(brought)
        self.counters.misses += len(keys) - len(brought)
        before, self._brought = self._brought, brought
        try:
            done()
        finally:
            self._brought = before

    def _taken(self, project: bytes, entry_id: bytes, value: bytes) -> Entry | None:
        try:
            entry, generation = unpacked(value)
        except msgspec.DecodeError:
            return None  # Of another version, or nobody's: as if it were not there.
        key = entry_id[_PROJECT_LENGTH:]
        if self.generations.voids(project, generation, entry.model, entry.kind, entry.created_ms, key, entry.key_id):
            return None
        if entry_id not in self._lately.outdated and entry_id not in self._before.outdated:
            self.memory.put(project, entry_id, entry, generation)
        return entry

    # Being in touch

    @property
    def is_in_touch(self) -> bool:
        """Whether it hears of every invalidation, and so may give out what it remembers."""
        return self._listening and self._loop.time() < self._in_touch_until

    def _look(self) -> None:
        """Ask for the last generation, twice a second: what no message told of is noticed by that."""
        if self._closed:
            return
        asked_at, known = self._loop.time(), self.generations.latest
        if not self._before.fetching:
            self._lately, self._before = Stretch(), self._lately

        def on_reply(reply: Any) -> None:
            if isinstance(reply, (Unreachable, hiredis.ReplyError)):
                return
            self._in_touch_until = asked_at + _IN_TOUCH_SECONDS
            generation = int(reply or 0)
            if generation < known:
                # Redis was emptied, or an old copy of it serves. What began before this is not stored.
                self._refused_until_ms = self._moment()
                self.memory.clear()
                self.generations.restart()
            if generation > self.generations.latest:
                # A message is on its way, or was lost.
                self.memory.clear()
                self.generations.forget()
                self.generations.learn(generation, self._moment())

        self._client.submit(GENERATION, encode("GET", GENERATION), on_reply)
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _begun(self, begun_ms: int) -> tuple[int, bool]:
        """The generation that a call belongs to, and whether it may not be stored whatever was invalidated."""
        # A call that began in the future: the clock was set back meanwhile, so every invalidation may be later.
        if begun_ms > self._now_ms():
            return 0, False
        self._newest_begun_ms = max(self._newest_begun_ms, begun_ms)
        return self.generations.at(begun_ms), begun_ms <= self._refused_until_ms

    def _moment(self) -> int:
        return max(self._now_ms(), self._newest_begun_ms)
