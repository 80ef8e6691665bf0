"""The snapshot in Redis: what its keys hold, and the scripts that read and change them.

    watchllm:{snapshot}:state           epoch, version, updates, floor, count, run
    watchllm:{snapshot}:EPOCH:records   hash: a record's key in the host's file (stores.lmdb.snapshot) → its bytes
    watchllm:{snapshot}:EPOCH:changes   sorted set: key → the version that changed it last, each change one of its own
    watchllm:{snapshot}:EPOCH:gone      the same of what was removed; the oldest is forgotten, `floor` says up to where

A reader that has version V asks for what changed after V, page by page. Versions grow with every changed record and
are never used twice, so a record that changes while pages are read comes again on a later page, and with the last page
all that was read is one state. Who is behind `floor` reads everything, under a position that begins at 0.

`epoch` names one history. Where Redis lost it, or a part of it (`count` tells), the next publisher begins another one,
with the time in milliseconds as its first version: greater than all before it. It begins with the id of the
installation whose history it is. Scripts change something only while the epoch is the one that was looked at: so
whoever finds by it that the history is another installation's can never change it, whatever happens in between. What an
earlier version began names nobody, and the first publisher begins a history of its own in its place.

`run` is that of the server on which it was written. Another one that has it, from a file or as a replica, may have
what was before: revoked keys among it. Nobody reads that, and the next publisher begins another epoch.

Publishing is optimistic: `updates` is read first, then the database, and a change is applied only if nobody's was
since. It also counts updates that changed nothing, so that an older state is never applied over a newer one.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from watchllm.stores.redis import server_run
from watchllm.stores.redis.client import Script

CHANNEL = b"watchllm:snapshot"
STATE = b"watchllm:{snapshot}:state"

PAGE = 1_000
"""Records a page."""

MOST_AT_ONCE = 5_000
"""Changes applied by one script: beyond, everything is written beside and then exchanged, so that Redis never stops."""

MOST_GONE = 10_000
"""Removed records that are remembered."""


def keys_of(epoch: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """STATE, records, changes and gone of an epoch."""
    head = b"watchllm:{snapshot}:" + epoch
    return STATE, head + b":records", head + b":changes", head + b":gone"


def new_epoch(installation: str) -> bytes:
    return b"%b.%b" % (installation.encode(), os.urandom(8).hex().encode())


def owner_of(epoch: bytes) -> str | None:
    """The id of the installation whose epoch it is; None where it does not say, or there is none."""
    owner, separator, _ = epoch.partition(b".")
    return owner.decode() if separator else None


class State(NamedTuple):
    """What STATE says."""

    epoch: bytes
    version: int
    updates: int
    floor: int
    is_doubtful: bool
    """Another server, or another run of it, has written it."""


# KEYS: STATE.
LOOK = Script(
    server_run.LUA
    + "return {server(), unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'updates', 'floor', 'run'))}"
)


def state_of(fields: list[bytes | None]) -> State | None:
    """What LOOK returned; None where there is no snapshot."""
    server, epoch, version, updates, floor, run = fields
    if epoch is None or version is None:
        return None
    return State(epoch, int(version), int(updates or 0), int(floor or 0), run not in (None, server))


class Page(NamedTuple):
    """`version` is the snapshot's, `reached` where the next page begins; `is_last`: nothing more was changed so far."""

    version: int
    floor: int
    reached: int
    is_last: bool
    changes: dict[bytes, bytes | None]


def page_of(reply: list[object], after: int) -> Page | None:
    """What READ returned; None where the epoch is over, or a part of it is lost."""
    if not reply:
        return None
    version, floor, names, values = reply
    assert isinstance(names, list)
    assert isinstance(values, list)
    reached = int(names[-1]) if names else after
    changes = dict(zip(names[::2], values, strict=True))
    return Page(int(version), int(floor), reached, len(changes) < PAGE, changes)  # type: ignore[call-overload]  # digits


# KEYS as keys_of; ARGV: epoch, after which version, how many.
READ = Script("""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'floor', 'count')
if state[1] ~= ARGV[1] or redis.call('HLEN', KEYS[2]) ~= tonumber(state[4]) then return {} end
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local values = {}
if #found > 0 then
  local names = {}
  for index = 1, #found, 2 do names[#names + 1] = found[index] end
  values = redis.call('HMGET', KEYS[2], unpack(names))
end
return {state[2], state[3], found, values}
""")

# KEYS as keys_of; ARGV: epoch, updates as read, channel, how many removed ones are kept, then key and value by turns,
# a value with '+' before it or '-' alone for what is removed. The version reached, or nothing.
APPLY = Script(
    server_run.LUA
    + """
local state = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'updates', 'run')
if state[1] ~= ARGV[1] or state[3] ~= ARGV[2] or (state[4] or server()) ~= server() then return false end
redis.call('HINCRBY', KEYS[1], 'updates', 1)
if #ARGV == 4 then return state[2] end
local version = tonumber(state[2])
for index = 5, #ARGV, 2 do
  version = version + 1
  local score = string.format('%.0f', version)
  redis.call('ZADD', KEYS[3], score, ARGV[index])
  if string.sub(ARGV[index + 1], 1, 1) == '+' then
    redis.call('HSET', KEYS[2], ARGV[index], string.sub(ARGV[index + 1], 2))
    redis.call('ZREM', KEYS[4], ARGV[index])
  else
    redis.call('HDEL', KEYS[2], ARGV[index])
    redis.call('ZADD', KEYS[4], score, ARGV[index])
  end
end
local surplus = redis.call('ZCARD', KEYS[4]) - tonumber(ARGV[4])
if surplus > 0 then
  local oldest = redis.call('ZRANGE', KEYS[4], 0, math.min(surplus, 1000) - 1, 'WITHSCORES')
  for index = 1, #oldest, 2 do
    redis.call('ZREM', KEYS[3], oldest[index])
    redis.call('ZREM', KEYS[4], oldest[index])
  end
  redis.call('HSET', KEYS[1], 'floor', oldest[#oldest])
end
local reached = string.format('%.0f', version)
redis.call('HSET', KEYS[1], 'version', reached, 'count', redis.call('HLEN', KEYS[2]), 'run', server())
redis.call('PUBLISH', ARGV[3], reached)
return reached
"""
)

# KEYS as keys_of the new epoch, then those of the one before, which go with it: whoever began this may not live to see
# its end. ARGV: new epoch, epoch and updates as read ('' where there was none), version, count,
# channel. 1 = it is the snapshot now, also where this is sent again because its reply was lost.
EXCHANGE = Script(
    server_run.LUA
    + """
local state = redis.call('HMGET', KEYS[1], 'epoch', 'updates')
if state[1] == ARGV[1] then return 1 end
if (state[1] or '') ~= ARGV[2] or (state[2] or '') ~= ARGV[3] then return 0 end
if redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[5]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', ARGV[4], 'updates', 1, 'floor', 0, 'count', ARGV[5],
  'run', server())
redis.call('PERSIST', KEYS[2])
redis.call('PERSIST', KEYS[3])
for index = 5, #KEYS do redis.call('UNLINK', KEYS[index]) end
redis.call('PUBLISH', ARGV[6], ARGV[4])
return 1
"""
)
