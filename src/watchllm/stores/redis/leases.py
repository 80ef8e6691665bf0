"""Calls under way in the whole fleet: a key in Redis per call, held by the process that makes it.

    watchllm:{PROJECT}:c:KEY   the process that makes the call; expires soon unless it is renewed
    watchllm:{PROJECT}:w:KEY   there if somebody waits for its end, who is then told by a message

Who waits is told of the end, and asks by itself twice a second: an owner that died, or a message that was lost, costs
no more than that. Where Redis does not answer in time, everybody calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from watchllm.stores.redis.client import Client, Script

CHANNEL = b"watchllm:ended"

_LEASE_MS = 3_000
_WAITED_FOR_MS = 60_000
_LOOK_SECONDS = 0.5
_RELEASE_SECONDS = 5.0
_PROJECT_LENGTH = 16

# KEYS: c, w. ARGV: process, milliseconds, milliseconds of w. 1 = the caller has it.
_CLAIM = Script("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
return 0
""")

# KEYS: c. ARGV: process, milliseconds.
_RENEW = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")

# KEYS: c, w. ARGV: process, channel, message.
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
""")

Told = Callable[[bool], None]


class RedisLeases:
    """The port `cache.leases.Leases`. `is_under_way` says whether this process makes a call for a place. `bulk` is the
    connection by which answers are stored: the end of a call is told after it."""

    def __init__(
        self,
        client: Client,
        bulk: Client,
        loop: asyncio.AbstractEventLoop,
        is_under_way: Callable[[bytes], bool],
    ) -> None:
        self._client = client
        self._bulk = bulk
        self._loop = loop
        self._is_under_way = is_under_way
        self._process = os.urandom(8).hex().encode()
        self._held: set[bytes] = set()
        self._asking: dict[bytes, list[Told]] = {}
        self._waiting: dict[bytes, list[Told]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def claim(self, place: bytes, told: Told) -> bool:
        if place in self._held:
            return True  # Nobody here makes the call that this process may make.
        for known in (self._asking, self._waiting):
            if place in known:
                known[place].append(told)
                return False
        if not self._ask(place):
            return True
        self._asking[place] = [told]
        return False

    def release(self, place: bytes) -> None:
        if place in self._held:
            self._held.discard(place)
            arguments = (self._process, CHANNEL, place)
            if not self._bulk.run(_RELEASE, _keys(place), arguments, _nothing, _RELEASE_SECONDS):
                # Nothing was stored by it, either, that would have to come first; and others would wait for the lease.
                self._client.run(_RELEASE, _keys(place), arguments, _nothing, _RELEASE_SECONDS)

    def heard(self, place: bytes) -> None:
        """A call has ended somewhere, as CHANNEL tells it."""
        for told in self._waiting.pop(place, ()):
            told(False)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for place in list(self._held):
            self.release(place)

    def _ask(self, place: bytes) -> bool:
        arguments = (self._process, _LEASE_MS, _WAITED_FOR_MS)
        return self._client.run(_CLAIM, _keys(place), arguments, lambda reply: self._answered(place, reply))

    def _answered(self, place: bytes, reply: Any) -> None:
        if reply == 0:
            asking = self._asking.pop(place, [])
            self._waiting.setdefault(place, []).extend(asking)
            self._keep_time()
            return
        if reply == 1:
            self._held.add(place)
            self._keep_time()
        # The first makes the call; it is under way when the others look.
        for told in self._asking.pop(place, ()):
            told(not self._is_under_way(place))
        for told in self._waiting.pop(place, ()):
            told(False)

    def _keep_time(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Renew what is held, give back what is not used, and ask again for what is waited for."""
        self._timer = None
        for place in list(self._held):
            if self._is_under_way(place):
                self._client.run(_RENEW, _keys(place)[:1], (self._process, _LEASE_MS), _nothing)
            else:
                self.release(place)
        for place in list(self._waiting):
            if not self._ask(place):
                for told in self._waiting.pop(place):
                    told(True)
        if self._held or self._waiting:
            self._keep_time()


def _keys(place: bytes) -> tuple[bytes, bytes]:
    project, key = place[:_PROJECT_LENGTH].hex().encode(), place[_PROJECT_LENGTH:]
    return b"watchllm:{%b}:c:%b" % (project, key), b"watchllm:{%b}:w:%b" % (project, key)


def _nothing(_reply: Any) -> None:
    """A lease that was not renewed or released ends by itself."""
