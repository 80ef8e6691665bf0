"""Invalidations of the shared cache, and what a project holds: for who may wait a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import hiredis

from watchllm.cache.entry import CacheStats, InvalidationFilter
from watchllm.domain.errors import Unavailable
from watchllm.stores.redis.cache_layout import (
    CHANNEL,
    DELETE,
    FINISHED,
    GENERATION,
    INVALIDATE,
    KEPT_MS,
    MOST_RECORDS,
    TRIM,
    Record,
    entry_key,
    key_of,
    packed_filter,
)
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.link import Unreachable

_SECONDS = 5.0
_PAGE = 500
_DELETED_AT_ONCE = 200
_TRIMMED_AT_ONCE = 2_000
_INDEX_FIELDS = 6

_Indexed = tuple[bytes, int, int, int, str, str, str]


async def invalidate(
    client: Client, project: bytes, what: InvalidationFilter, in_force: Callable[[bytes, Record], None]
) -> int:
    """Forget what matches; the number forgotten. `in_force` is told the record as soon as it has its generation.

    Raises Unavailable.
    """
    try:
        generation = int(await client.call(GENERATION, "INCR", GENERATION, seconds=_SECONDS))
        in_force(project, Record(generation, what))
        keys = (key_of(project, "l"), key_of(project, "g"))
        arguments = (generation, packed_filter(what), KEPT_MS, MOST_RECORDS, CHANNEL, project)
        await client.call_script(INVALIDATE, keys, arguments, seconds=_SECONDS)
        count = await _delete(client, project, what, generation)
        await client.call_script(FINISHED, keys[:1], (generation,), seconds=_SECONDS)
    except (Unreachable, hiredis.ReplyError) as error:
        raise Unavailable("the cache in Redis cannot be invalidated now; send it again") from error
    return count


async def stats(client: Client, project: bytes) -> CacheStats:
    """Entries and bytes by the index, from which what Redis evicted has not all gone. Raises Unavailable."""
    entries = size = 0
    by_kind: dict[str, int] = {}
    try:
        index = key_of(project, "x"), key_of(project, "i")
        while await client.call_script(TRIM, index, (_TRIMMED_AT_ONCE,), seconds=_SECONDS) == _TRIMMED_AT_ONCE:
            pass
        async for _, _, _, length, kind, *_ in _indexed(client, project):
            entries += 1
            size += length
            by_kind[kind] = by_kind.get(kind, 0) + 1
        memory = await client.call(index[0], "INFO", "memory", seconds=_SECONDS)
    except (Unreachable, hiredis.ReplyError) as error:
        raise Unavailable("the cache in Redis cannot be read now; try again") from error
    return CacheStats(entries, size, by_kind, number_in(memory, b"maxmemory"))


async def _delete(client: Client, project: bytes, what: InvalidationFilter, generation: int) -> int:
    count = 0
    found: list[bytes] = []
    # Those that are named are looked up: to look through all that a project has takes a while, of Redis, too.
    meant = _indexed(client, project) if what.keys is None else _named(client, project, what.keys)
    async for key, begun, created_ms, _, kind, model, source in meant:
        if begun < generation and what.matches(model, kind, created_ms, key, source or None):
            found.append(key)
        if len(found) >= _DELETED_AT_ONCE:
            count += await _delete_these(client, project, found, generation)
            found = []
    if found:
        count += await _delete_these(client, project, found, generation)
    return count


async def _delete_these(client: Client, project: bytes, found: list[bytes], generation: int) -> int:
    entries = (entry_key(project, key) for key in found)
    keys = (key_of(project, "x"), key_of(project, "i"), *entries)
    return int(await client.call_script(DELETE, keys, (generation, *found), seconds=_SECONDS))


async def _named(client: Client, project: bytes, keys: Sequence[bytes]) -> AsyncIterator[_Indexed]:
    """As `_indexed`, of these keys."""
    index = key_of(project, "i")
    for start in range(0, len(keys), _PAGE):
        some = keys[start : start + _PAGE]
        for key, text in zip(some, await client.call(index, "HMGET", index, *some, seconds=_SECONDS), strict=True):
            if text is not None:
                yield _parsed(key, text)


async def _indexed(client: Client, project: bytes) -> AsyncIterator[_Indexed]:
    """Of each entry of the index: key, generation, when it was created, bytes, kind, model, whose request caused it."""
    index = key_of(project, "i")
    cursor: Any = b"0"
    seen: set[bytes] = set()
    while True:
        cursor, page = await client.call(index, "HSCAN", index, cursor, "COUNT", _PAGE, seconds=_SECONDS)
        for key, text in zip(page[::2], page[1::2], strict=True):
            if key in seen:
                continue  # A scan may tell of one twice.
            seen.add(key)
            yield _parsed(key, text)
        if cursor == b"0":
            return


def _parsed(key: bytes, text: bytes) -> _Indexed:
    generation, created, length, kind, source, model = text.split(b"|", _INDEX_FIELDS - 1)
    return key, int(generation), int(created), int(length), kind.decode(), model.decode(), source.decode()


def number_in(information: bytes, wanted: bytes) -> int:
    """A number that INFO tells, 0 where it does not."""
    for line in information.splitlines():
        name, _, value = line.partition(b":")
        if name == wanted:
            return int(value)
    return 0
