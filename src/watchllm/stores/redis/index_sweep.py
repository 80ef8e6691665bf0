"""Takes out of the indexes of the shared cache what Redis has evicted, of projects that store nothing any more: of the
others that is done as they store. An index cannot be evicted itself, so it would keep its part of Redis for ever.

    watchllm:{generation}:indexed   set: the projects that have an index
"""

from __future__ import annotations

import asyncio
from typing import Any

from watchllm.stores.redis.cache_layout import SWEEP, entry_key, key_of
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.link import encode

INDEXED = b"watchllm:{generation}:indexed"

_LOOK_SECONDS = 1.0
_AT_ONCE = 200
# Where that part of them was gone, it is looked at again at once.
_MANY = _AT_ONCE // 4
# Somebody may have found an index empty, and the project in no need to be told of, just before it was begun anew.
_TELL_AGAIN_LOOKS = 600
_MOST_TOLD = 20_000


class IndexSweep:
    """Made on the running loop. It looks at some entries of one project a second, and goes on with that while many are
    gone."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop
        self._told: set[bytes] = set()
        self._looks = 0
        self._closed = False
        self._timer = loop.call_later(_LOOK_SECONDS, self._look)

    def has_index(self, project: bytes) -> None:
        """Something is stored of it."""
        if project in self._told:
            return
        if self._client.submit(INDEXED, encode("SADD", INDEXED, project), _nothing):
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(project)

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()

    def _look(self) -> None:
        self._looks += 1
        if self._looks % _TELL_AGAIN_LOOKS == 0:
            self._told.clear()
        self._client.submit(INDEXED, encode("SRANDMEMBER", INDEXED), self._sweep)
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _sweep(self, project: Any) -> None:
        if self._closed or not isinstance(project, bytes):
            return

        def on_reply(reply: Any) -> None:
            if not isinstance(reply, list):
                return
            looked, gone = reply
            if not looked:
                self._client.submit(INDEXED, encode("SREM", INDEXED, project), _nothing)
            elif gone >= _MANY:
                self._sweep(project)

        keys = key_of(project, "x"), key_of(project, "i")
        self._client.run(SWEEP, keys, (entry_key(project, b""), _AT_ONCE), on_reply)


def _nothing(_reply: Any) -> None:
    """What could not be told or done now is done another time."""
