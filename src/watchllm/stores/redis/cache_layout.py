"""The exact cache in Redis: what its keys hold, and the scripts that change them.

All keys of a project share a hash tag, so that one script sees all of it and a cluster keeps it on one node:

    watchllm:{PROJECT}:e:KEY   an entry: the generation its call began in (8 bytes), MessagePack; expires by itself
    watchllm:{PROJECT}:g       the generation of the project's last invalidation
    watchllm:{PROJECT}:l       hash: generation → invalidation, `time|done|before|after|kind|source|keys|=model`
    watchllm:{PROJECT}:x       sorted set: KEY → when Redis lets it expire, by its own clock
    watchllm:{PROJECT}:i       hash: KEY → `generation|created|size|kind|source|model`
    watchllm:{generation}      counts all invalidations of all projects
    watchllm:{generation}:indexed   set: the projects that have an index (index_sweep.py)

*Generations* stand for time, because the clocks of hosts do not agree: an invalidation is given the next number, every
process learns of it soon, and a call belongs to the highest number that its process knew before it began. An answer is
refused, and an entry is not seen, if an invalidation that matches has a higher number. So what a process has not heard
of yet refuses too much, never too little.
"""

from __future__ import annotations

import re

import msgspec

from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.stores.redis.client import Script

CHANNEL = b"watchllm:invalidated"
"""Tells a project, a generation and a filter."""

REPLACED = b"watchllm:replaced"
"""Tells a project, a key and the process that stored another answer there, or removed it."""

GENERATION = b"watchllm:{generation}"

KEPT_MS = 2 * 3_600_000
"""How long an invalidation refuses: longer than any call upstream may take."""

MOST_RECORDS = 128
_GENERATION_BYTES = 8
_GENERATION_DIGITS = 15
_NO_KEY = ","

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_RECORD = re.compile(rb"(\d+)\|(\d)\|(\d*)\|(\d*)\|([^|]*)\|([^|]*)\|([0-9a-f,]*)\|(.*)", re.DOTALL)


class Record(msgspec.Struct, frozen=True):
    """An invalidation of one project."""

    generation: int
    what: InvalidationFilter

    def voids(
        self,
        generation: int,
        model: str,
        kind: str,
        created_ms: int,
        key: bytes | None = None,
        source: str | None = None,
    ) -> bool:
        """Whether the answer of a call that began in `generation` must not be stored or seen. A `key` or `source` that
        is not known, None, may be the one that is meant."""
        return self.generation > generation and self.what.matches(model, kind, created_ms, key, source)


def key_of(project: bytes, what: str) -> bytes:
    return b"watchllm:{%b}:%b" % (project.hex().encode(), what.encode())


def entry_key(project: bytes, key: bytes) -> bytes:
    return b"watchllm:{%b}:e:%b" % (project.hex().encode(), key)


def packed(entry: Entry, generation: int) -> bytes:
    return generation.to_bytes(_GENERATION_BYTES, "big") + _encode(entry)


def unpacked(value: bytes) -> tuple[Entry, int]:
    """Raises msgspec.DecodeError for what is no entry."""
    return _decode(value[_GENERATION_BYTES:]), int.from_bytes(value[:_GENERATION_BYTES], "big")


def packed_filter(what: InvalidationFilter) -> bytes:
    """`before|after|kind|source|keys|=model`, the parts that are not given empty; keys in hex, with commas."""
    before, after = ("" if ms is None else str(max(0, ms)) for ms in (what.before_ms, what.after_ms))
    model = "" if what.model is None else "=" + what.model
    keys = "" if what.keys is None else ",".join(key.hex() for key in what.keys) or _NO_KEY
    return f"{before}|{after}|{what.kind or ''}|{what.source or ''}|{keys}|{model}".encode()


def generation_of(text: bytes) -> int | None:
    """None for what is no generation."""
    return int(text) if text.isdigit() and len(text) <= _GENERATION_DIGITS else None


def record_of(generation: int, text: bytes) -> Record:
    """A text of another form, as a newer version may write it, forgets everything: that costs misses only."""
    try:
        return Record(generation, _filter_of(text))
    except ValueError:
        return Record(generation, InvalidationFilter())


def _filter_of(text: bytes) -> InvalidationFilter:
    match = _RECORD.fullmatch(text)
    if match is None:
        raise ValueError("it is of another form")
    _, _, before, after, kind, source, keys, model = match.groups()
    return InvalidationFilter(
        model[1:].decode() if model else None,
        kind.decode() or None,
        int(before) if before else None,
        int(after) if after else None,
        tuple(bytes.fromhex(key) for key in keys.decode().split(",") if key) if keys else None,
        source.decode() or None,
    )


_MATCHES = """
local function matches(text, model, kind, created, key, source)
  local before, after, its_kind, its_source, keys, its_model =
    string.match(text, '^%d+|%d|(%d*)|(%d*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  if not before then return true end
  return (its_source == '' or source == '' or its_source == source)
    and (keys == '' or string.find(',' .. keys .. ',', ',' .. key .. ',', 1, true) ~= nil)
    and (its_model == '' or its_model == '=' .. model) and (its_kind == '' or its_kind == kind)
    and (before == '' or created < tonumber(before)) and (after == '' or created > tonumber(after))
end
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_SWEEP = """
local function sweep(head, index, details, most)
  local found, gone = redis.call('ZRANDMEMBER', index, most), 0
  for _, key in ipairs(found) do
    if redis.call('EXISTS', head .. key) == 0 then
      redis.call('ZREM', index, key)
      redis.call('HDEL', details, key)
      gone = gone + 1
    end
  end
  return {#found, gone}
end
"""

# KEYS: entry, l, x, i. ARGV: KEY, generation, value, milliseconds to live, created, kind, model, channel, message, the
# KEY in hex, source ("" = not known).
# 0 = refused. Some of the index is looked at each time: what Redis evicted would stay in it until it expires, which may
# be never, and the index itself cannot be evicted. First, because what takes away is done in a full Redis, too, and
# what comes after it in a script then as well.
PUT = Script(
    _SWEEP
    + _MATCHES
    + """
local log = redis.call('HGETALL', KEYS[2])
for index = 1, #log, 2 do
  if tonumber(log[index]) > tonumber(ARGV[2])
    and matches(log[index + 1], ARGV[7], ARGV[6], tonumber(ARGV[5]), ARGV[10], ARGV[11]) then
    return 0
  end
end
"""
    + _NOW
    + """
sweep(string.sub(KEYS[1], 1, -#ARGV[1] - 1), KEYS[3], KEYS[4], 8)
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('PUBLISH', ARGV[8], ARGV[9]) end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[4])), ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], table.concat({ARGV[2], ARGV[5], #ARGV[3], ARGV[6], ARGV[11], ARGV[7]}, '|'))
local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 10)
if #gone > 0 then
  redis.call('ZREM', KEYS[3], unpack(gone))
  redis.call('HDEL', KEYS[4], unpack(gone))
end
return 1
"""
)

# KEYS: entry, x, i. ARGV: KEY, channel, message.
REMOVE = Script("""
if redis.call('DEL', KEYS[1]) == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
""")

# KEYS: l, g. ARGV: generation, filter, how long records are kept, how many, channel, project. Of too many, the older
# half becomes one that refuses more than was asked for, which costs a miss.
INVALIDATE = Script(
    _NOW
    + """
local kept = {}
local log = redis.call('HGETALL', KEYS[1])
for index = 1, #log, 2 do
  local at, done = string.match(log[index + 1], '^(%d+)|(%d)')
  if done == '1' and tonumber(at) < now - tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], log[index])
  else
    kept[#kept + 1] = {tonumber(log[index]), log[index], tonumber(at), done}
  end
end
if #kept >= tonumber(ARGV[4]) then
  table.sort(kept, function(one, other) return one[1] < other[1] end)
  local latest, done, last = 0, '1', nil
  for index = 1, math.floor(#kept / 2) do
    redis.call('HDEL', KEYS[1], kept[index][2])
    latest = math.max(latest, kept[index][3])
    if kept[index][4] == '0' then done = '0' end
    last = kept[index][2]
  end
  redis.call('HSET', KEYS[1], last, string.format('%.0f|%s||||||', latest, done))
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f|0|', now) .. ARGV[2])
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1]) end
redis.call('PUBLISH', ARGV[5], ARGV[6] .. ARGV[1] .. '|' .. ARGV[2])
return 1
"""
)

# KEYS: l. ARGV: generation.
FINISHED = Script("""
local text = redis.call('HGET', KEYS[1], ARGV[1])
if text then redis.call('HSET', KEYS[1], ARGV[1], (string.gsub(text, '^(%d+)|0', '%1|1'))) end
return 1
""")

# KEYS: x, i, then entries. ARGV: generation, then their KEYs. How many of those were there and began before.
DELETE = Script("""
local count = 0
for index = 3, #KEYS do
  local key = ARGV[index - 1]
  local meta = redis.call('HGET', KEYS[2], key)
  if meta and tonumber(string.match(meta, '^%d+')) < tonumber(ARGV[1]) then
    count = count + redis.call('DEL', KEYS[index])
    redis.call('ZREM', KEYS[1], key)
    redis.call('HDEL', KEYS[2], key)
  end
end
return count
""")

# KEYS: x, i. ARGV: what the keys of entries begin with, how many. Some of what is in the index is looked at, and leaves
# it where Redis has evicted it; how many were looked at, and how many left.
SWEEP = Script(_SWEEP + "return sweep(ARGV[1], KEYS[1], KEYS[2], ARGV[2])")

# KEYS: x, i. ARGV: how many. What has expired leaves the index; how many did.
TRIM = Script(
    _NOW
    + """
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  redis.call('HDEL', KEYS[2], unpack(gone))
end
return #gone
"""
)
