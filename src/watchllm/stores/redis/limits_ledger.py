"""The recorder's side of limits in Redis: what the database says was spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from typing import TypeVar

from redis import RedisError

from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.stores.lmdb.snapshot_copy import Position
from watchllm.stores.redis import server_run
from watchllm.stores.redis.blocking import Blocking, reason
from watchllm.stores.redis.client import Script
from watchllm.stores.redis.limits_layout import CHANNEL, KEPT, PLACES, WANTED, account_of, place_text, prefix_of
from watchllm.stores.redis.limits_scripts import COMMON
from watchllm.stores.redis.link import Argument
from watchllm.stores.redis.ownership import owner, refusal
from watchllm.stores.redis.snapshot_layout import STATE

# Live proxies join an account that is begun anew as soon as they are told; those that do not are not waited for longer.
_GRACE_MS = 1_500
_AT_ONCE = 500
_LARGEST = 1 << 53

# Segments that are dropped by one script: Redis does nothing else meanwhile.
_DROPPED_AT_ONCE = 500

_IF_KEPT, _WHOLE, _PART_OF_WHOLE, _REST = "0", "1", "2", "3"
_MORE = 2

T = TypeVar("T")

# ARGV: prefix; 0 what is new, if the account is kept, 1 all of it, or the last of all, 2 a part of that, 3 once more
# what was not done; organization, channel, how long the awaited are awaited in ms, how many segments may be dropped;
# then, each list after its length: places (series, place); places up to which only those are told of who are in what
# was spent; awaited series; what was spent (subject, slot, period, nanos, requests). 1 = the account is kept, 2 = so it
# is, and segments are left that the places drop.
LEDGER = Script(
    COMMON
    + """
local function told_up_to(name, place, told)
  local head, tail = number(redis.call('HGET', account, 'qh|' .. name)),
    number(redis.call('HGET', account, 'qt|' .. name))
  local whole, last = '', ''
  for index = head + 1, math.min(tail, head + allowed) do
    local at, subject = string.match(redis.call('HGET', account, 'q|' .. name .. '|' .. text(index)), '^(%S+) (%S+) ')
    if is_after(at, last) then whole, last = last, at end
    if is_after(at, place) or not told[subject] then return whole end
  end
  return tail - head <= allowed and last or whole
end

doubt()
local state = redis.call('HMGET', account, 'ready', 'grace')
local known = state[1] or state[2]
if (ARGV[2] == '0' or ARGV[2] == '3') and not known then return 0 end
allowed = tonumber(ARGV[6])
local is_done = true
local index = 7
local function next_one() index = index + 1 return ARGV[index - 1] end
local places, others, awaited, told = {}, {}, {}, {}
for _ = 1, tonumber(next_one()) do places[#places + 1] = {next_one(), next_one()} end
for _ = 1, tonumber(next_one()) do others[#others + 1] = {next_one(), next_one()} end
for _ = 1, tonumber(next_one()) do awaited[#awaited + 1] = next_one() end
for _ = 1, tonumber(next_one()) do
  local subject = next_one()
  told[subject] = true
  local field, period, nanos, requests = 'L|' .. subject .. '|' .. next_one(), tonumber(next_one()),
    tonumber(next_one()), tonumber(next_one())
  local before, old_nanos, old_requests = parsed(redis.call('HGET', account, field))
  if before == period then nanos, requests = math.max(nanos, old_nanos), math.max(requests, old_requests) end
  if not before or before <= period then
    redis.call('HSET', account, field, text(period) .. ' ' .. text(nanos) .. ' ' .. text(requests))
  end
end
for _, pair in ipairs(places) do
  local name, place = pair[1], pair[2]
  local before = redis.call('HGET', account, 'p|' .. name) or ''
  if place == '~' then
    if drop(name, '~') then
      redis.call('DEL', held(name))
      redis.call('HDEL', account, 'p|' .. name, 'j|' .. name, 'u|' .. name)
    else
      redis.call('HSET', account, 'p|' .. name, place)
      is_done = false
    end
  elseif is_after(place, before) or (place == before and ARGV[2] == '3') then
    redis.call('HSET', account, 'p|' .. name, place)
    if not drop(name, place) then is_done = false end
  end
end
for _, pair in ipairs(others) do
  local name = pair[1]
  local before = redis.call('HGET', account, 'p|' .. name) or ''
  local place = told_up_to(name, pair[2], told)
  if is_after(place, before) then
    redis.call('HSET', account, 'p|' .. name, place)
    drop(name, place)
  end
end
if ARGV[2] == '1' and not known then
  redis.call('HSET', account, 'awaited', table.concat(awaited, ' '), 'grace', text(now + tonumber(ARGV[5])), 'run',
    server())
  redis.call('PERSIST', account)
  redis.call('PUBLISH', ARGV[4], ARGV[3])
end
return is_done and 1 or 2
"""
)

# KEYS: places. ARGV: series and place by turns. Others may have told of a later place meanwhile.
COUNTED = Script("""
for index = 1, #ARGV, 2 do
  if ARGV[index + 1] > (redis.call('HGET', KEYS[1], ARGV[index]) or '') then
    redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
  end
end
return 1
""")


# KEYS: places. ARGV: series. The run of the server that has them, then the place of each.
LOOK = Script(server_run.LUA + "return {server(), unpack(redis.call('HMGET', KEYS[1], unpack(ARGV)))}")


class RedisAccounts:
    """Implements `journal.shared_ledger.Accounts`, for the recorder of the installation `own`, whose database is at
    `database`, on a host whose copy of the snapshot is at `position`. The Redis of another one is told nothing: of
    everybody there, this database would say that nothing was spent."""

    def __init__(self, redis: Blocking, own: str, database: str, position: Callable[[], Position]) -> None:
        self._redis = redis
        self._own = own
        self._database = database
        self._position = position
        self._run: bytes | None = None
        """Of the server that was told."""

    def refused(self) -> str | None:
        """Why they are another installation's, None = they are not, as far as that is known. Raises nothing."""
        try:
            epoch = self._redis.redis.hget(STATE, "epoch")
        except RedisError:
            epoch = None
        if owner(epoch, self._position()) in (None, self._own):
            return None
        return refusal(self._redis.shown, f"the database {self._database}")

    def wanted(self) -> set[str]:
        self._check_owner()
        return self._ask(lambda: {name.decode() for name in self._redis.redis.smembers(WANTED)})

    def kept(self) -> set[str]:
        return self._ask(lambda: {name.decode() for name in self._redis.redis.smembers(KEPT)})

    def write(
        self, spent: dict[str, dict[str, Periods]], places: dict[str, Place], others: dict[str, Place]
    ) -> set[str]:
        self._check_owner()
        told = [
            (organization, arguments)
            for organization, of_it in spent.items()
            for arguments in _written(organization, of_it, places, others, (_IF_KEPT, _IF_KEPT))
        ]
        calls = [((account_of(organization),), arguments) for organization, arguments in told]
        replies = self._ask(lambda: self._redis.run_each(LEDGER, calls))
        for (organization, _), reply in zip(told, replies, strict=True):
            self._tell_rest(organization, places, reply)
        return {organization for (organization, _), reply in zip(told, replies, strict=True) if not reply}

    def asked_for(self, organizations: set[str]) -> set[str]:
        if not organizations:
            return set()
        names = sorted(organizations)
        # In this order: who is taken from the one was put into the other before.
        sets = [self._ask(partial(self._redis.redis.smismember, key, names)) for key in (WANTED, KEPT)]
        return {name for name, *is_there in zip(names, *sets, strict=True) if any(is_there)}

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        # Before it is: whoever ends in between has it written again.
        self._ask(lambda: self._redis.redis.sadd(KEPT, organization))
        for arguments in _written(organization, spent, places, {}, (_PART_OF_WHOLE, _WHOLE)):
            reply = self._ask(partial(self._redis.run, LEDGER, (account_of(organization),), *arguments))
            self._tell_rest(organization, places, reply)
        self._ask(lambda: self._redis.redis.srem(WANTED, organization))

    def counted(self, places: dict[str, Place]) -> None:
        finished = [series for series, place in places.items() if place.finished]
        under_way = {series: place_text(place) for series, place in places.items() if not place.finished}
        if finished:
            self._ask(lambda: self._redis.redis.hdel(PLACES, *finished))
        if under_way:
            arguments = [text for pair in under_way.items() for text in pair]
            self._ask(lambda: self._redis.run(COUNTED, (PLACES,), *arguments))

    def expected(self) -> set[str]:
        return self._ask(lambda: {name.decode() for name in self._redis.redis.hkeys(PLACES)})

    def knows(self, series: set[str]) -> bool:
        run, *places = self._ask(lambda: self._redis.run(LOOK, (PLACES,), *sorted(series)))
        is_another, self._run = self._run not in (None, run), run
        # Another one may know what was before: a file that it had written, or what it had heard as a replica.
        return not is_another and None not in places

    def _check_owner(self) -> None:
        refused = self.refused()
        if refused is not None:
            raise NotTold(refused)

    def _tell_rest(self, organization: str, places: dict[str, Place], reply: int) -> None:
        """Have dropped what one script alone was not to drop."""
        arguments = _arguments(organization, _REST, places, {}, {})
        while reply == _MORE:
            reply = self._ask(partial(self._redis.run, LEDGER, (account_of(organization),), *arguments))

    def _ask(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except RedisError as error:
            raise NotTold(f"Redis at {self._redis.shown} cannot be told who has spent what: {reason(error)}") from None


def _written(
    organization: str,
    spent: dict[str, Periods],
    places: dict[str, Place],
    others: dict[str, Place],
    modes: tuple[str, str],
) -> Iterator[list[Argument]]:
    """The arguments of LEDGER, for each part of what is told: the modes of those before the last, and of the last."""
    names = sorted(spent)
    while len(names) > _AT_ONCE:
        some, names = names[:_AT_ONCE], names[_AT_ONCE:]
        yield _arguments(organization, modes[0], {}, {}, {name: spent[name] for name in some})
    # With the last of it: only then may be forgotten what the proxies have told of what is before.
    yield _arguments(organization, modes[1], places, others, {name: spent[name] for name in names})


def _arguments(
    organization: str, mode: str, places: dict[str, Place], others: dict[str, Place], spent: dict[str, Periods]
) -> list[Argument]:
    awaited = [series for series, place in places.items() if not place.finished]
    rows = [
        (subject, *_slot(period), min(nanos, _LARGEST), requests)
        for subject, periods in spent.items()
        for period, (requests, nanos) in periods.items()
    ]
    arguments: list[Argument] = [prefix_of(organization), mode, organization, CHANNEL, _GRACE_MS, _DROPPED_AT_ONCE]
    for some in (places, others):
        arguments += [len(some), *(text for name, place in some.items() for text in (name, place_text(place)))]
    arguments += [len(awaited), *awaited]
    arguments += [len(rows), *(value for row in rows for value in row)]
    return arguments


def _slot(period: str) -> tuple[str, int]:
    """The slot of limits_layout in which a period of `domain.ledger.Periods` is, and its number."""
    if period == "total":
        return "t", 0
    if len(period) == len("2026-11"):
        month = int(period[:4]) * 12 + int(period[5:]) - 1
        return f"m{month % 3}", month
    day = (date.fromisoformat(period) - date(1970, 1, 1)).days
    return f"d{day % 4}", day
