"""The scripts that read and change limits in Redis (limits_layout.py says what its keys hold)."""

from __future__ import annotations

from watchllm.stores.redis import server_run
from watchllm.stores.redis.client import Script

COMMON = (
    server_run.LUA
    + """
local account, prefix = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function number(value) return tonumber(value or '0') or 0 end
local function held(name) return prefix .. 'held|' .. name end

-- Places in the order of their bytes. `>` has the order of the server's locale, where signs may come before digits.
local function is_after(one, other)
  local first, second = string.byte(one) or 0, string.byte(other) or 0
  return first > second or (first == second and one > other)
end

local function names()
  local found, gone = {}, false
  for name in string.gmatch(redis.call('HGET', account, 'names') or '', '%S+') do
    if redis.call('EXISTS', held(name)) == 1 then
      found[#found + 1] = name
    else
      gone = true
      redis.call('HDEL', account, 'j|' .. name, 'u|' .. name)
    end
  end
  if gone then redis.call('HSET', account, 'names', table.concat(found, ' ')) end
  return found
end

local function doubt()
  local this = server()
  if redis.call('HGET', account, 'run') == this or redis.call('EXISTS', account) == 0 then return end
  for _, field in ipairs(redis.call('HKEYS', account)) do
    if string.sub(field, 1, 2) ~= 'L|' then redis.call('HDEL', account, field) end
  end
  redis.call('HSET', account, 'run', this)
  redis.call('PEXPIRE', account, 3600000)
end

local function slots(day, month)
  return {{'t', 0}, {'m' .. month % 3, month}, {'d' .. day % 4, day}}
end

local function parsed(value)
  local period, nanos, requests = string.match(value or '', '^(%d+) (%-?%d+) (%-?%d+)$')
  return tonumber(period), tonumber(nanos), tonumber(requests)
end

local function book(subject, day, month, nanos, requests, sign)
  for _, slot in ipairs(slots(day, month)) do
    local field = 'P|' .. subject .. '|' .. slot[1]
    local period, old_nanos, old_requests = parsed(redis.call('HGET', account, field))
    local nanos_now, requests_now
    if period == slot[2] then
      nanos_now, requests_now = old_nanos + sign * nanos, old_requests + sign * requests
    elseif sign > 0 and (not period or period < slot[2]) then
      nanos_now, requests_now = nanos, requests
    else
      nanos_now = nil
    end
    if nanos_now == 0 and requests_now == 0 then
      redis.call('HDEL', account, field)
    elseif nanos_now then
      redis.call('HSET', account, field, slot[2] .. ' ' .. text(nanos_now) .. ' ' .. text(requests_now))
    end
  end
end

local allowed = math.huge
local function drop(name, place)
  local head, tail = number(redis.call('HGET', account, 'qh|' .. name)),
    number(redis.call('HGET', account, 'qt|' .. name))
  local is_done = true
  if tail == 0 then return is_done end
  while head < tail do
    if allowed == 0 then
      is_done = false
      break
    end
    allowed = allowed - 1
    local field = 'q|' .. name .. '|' .. text(head + 1)
    local at, subject, day, month, nanos, requests =
      string.match(redis.call('HGET', account, field), '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    if is_after(at, place) then break end
    book(subject, tonumber(day), tonumber(month), tonumber(nanos), tonumber(requests), -1)
    redis.call('HDEL', account, field)
    head = head + 1
  end
  if head == tail then
    redis.call('HDEL', account, 'qh|' .. name, 'qt|' .. name)
  else
    redis.call('HSET', account, 'qh|' .. name, text(head))
  end
  return is_done
end
"""
)

# ARGV: prefix, series, incarnation, window, bucket, lease, hold and slice in ms; what follows begins at 9.
_OF_PROXY = (
    COMMON
    + """
local series = ARGV[2]
local window, bucket, lease, hold, slice = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8])

doubt()
local function renew()
  if redis.call('HGET', held(series), 'j') ~= ARGV[3] or redis.call('HGET', account, 'j|' .. series) ~= ARGV[3] then
    return false
  end
  redis.call('HSET', held(series), 'alive', text(now + lease))
  redis.call('PEXPIRE', held(series), hold)
  if redis.call('PTTL', account) >= 0 then redis.call('PEXPIRE', account, 3600000) end
  return true
end

local function used(key)
  local state = redis.call('HMGET', key, 's', 'o')
  local sum, oldest = number(state[1]), tonumber(state[2] or '')
  local passed = math.floor((now - window) / bucket) - 1
  if oldest and oldest <= passed then
    local fields = {}
    for place = oldest, passed do fields[#fields + 1] = text(place) end
    for _, amount in ipairs(redis.call('HMGET', key, unpack(fields))) do
      if amount then sum = sum - tonumber(amount) end
    end
    redis.call('HDEL', key, unpack(fields))
    redis.call('HSET', key, 's', text(sum), 'o', text(passed + 1))
  end
  return sum
end

local function use(key, amount, at)
  local place = math.floor(at / bucket)
  redis.call('HINCRBY', key, text(place), text(amount))
  redis.call('HINCRBY', key, 's', text(amount))
  local ends = redis.call('HMGET', key, 'o', 'l')
  if not ends[1] or tonumber(ends[1]) > place then redis.call('HSET', key, 'o', text(place)) end
  if number(ends[2]) < place then redis.call('HSET', key, 'l', text(place)) end
  redis.call('PEXPIRE', key, text(window + 4 * bucket + at - now))
  return place
end

local function give_back(key, place, amount)
  used(key)
  local there = redis.call('HMGET', key, 'o', text(place))
  if there[1] and there[2] and place >= tonumber(there[1]) then
    redis.call('HINCRBY', key, text(place), text(-amount))
    redis.call('HINCRBY', key, 's', text(-amount))
  end
end

local function change(field, amount)
  if amount ~= 0 and redis.call('HINCRBY', held(series), field, text(amount)) == 0 then
    redis.call('HDEL', held(series), field)
  end
end

local function tell(field, amount)
  if amount > 0 then
    redis.call('HSET', held(series), field, text(amount))
  else
    redis.call('HDEL', held(series), field)
  end
end
"""
)

_BODY_OF_REPORT = """
local index = 9
local function next_one() index = index + 1 return ARGV[index - 1] end
local function next_number() return tonumber(next_one()) end
for _ = 1, next_number() do
  local subject = next_one()
  change('h|' .. subject, next_number())
  change('k|' .. subject, next_number())
  change('c|' .. subject, next_number())
  tell('ks|' .. subject, next_number())
  tell('cs|' .. subject, next_number())
end
local counted = redis.call('HGET', account, 'p|' .. series) or ''
for _ = 1, next_number() do
  local place, subject, day, month, nanos, requests =
    next_one(), next_one(), next_number(), next_number(), next_number(), next_number()
  if is_after(place, counted) then
    book(subject, day, month, nanos, requests, 1)
    local last = text(redis.call('HINCRBY', account, 'qt|' .. series, 1))
    redis.call('HSET', account, 'q|' .. series .. '|' .. last,
      table.concat({place, subject, text(day), text(month), text(nanos), text(requests)}, ' '))
  end
end
for _ = 1, next_number() do
  local key = prefix .. next_one()
  local place, amount, slice_size = next_number(), next_number(), next_number()
  if amount > 0 then give_back(key, place, amount) end
  if slice_size > 0 and redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'x', text(math.max(0, number(redis.call('HGET', key, 'x')) - slice_size)))
  end
end
local last_told = number(redis.call('HGET', account, 'u|' .. series))
for _ = 1, next_number() do
  local told = next_number()
  for _ = 1, next_number() do
    local key, amount = prefix .. next_one(), next_number()
    if told > last_told then used(key) use(key, amount, now) end
  end
  if told > last_told then redis.call('HSET', account, 'u|' .. series, text(told)) end
end
return {3, #names(), counted}
"""

# ARGV from 9, each list after its length: what is held (subject, changes of nanos, requests and places, and how many of
# the requests and places are spare); segments (place, subject, day, month, nanos, requests); uses of minutes to give
# back (window, bucket, amount, size of the slice that has ended); batches of more uses (number, under which it counts
# once, and a list of window and amount).
REPORT = Script(_OF_PROXY + "if not renew() then return {0} end\n" + _BODY_OF_REPORT)

# As REPORT, all that there is: it takes the place of what was known of the series.
JOIN = Script(
    _OF_PROXY
    + """
drop(series, '~~')
redis.call('DEL', held(series))
redis.call('HSET', held(series), 'j', ARGV[3], 'alive', text(now + lease))
redis.call('PEXPIRE', held(series), hold)
if redis.call('HEXISTS', account, 'j|' .. series) == 0 then
  redis.call('HSET', account, 'names', (redis.call('HGET', account, 'names') or '') .. ' ' .. series)
end
redis.call('HSET', account, 'j|' .. series, ARGV[3], 'run', server())
if redis.call('HEXISTS', account, 'ready') == 0 and redis.call('HEXISTS', account, 'grace') == 0 then
  redis.call('PEXPIRE', account, 3600000)
end
"""
    + _BODY_OF_REPORT
)

# ARGV from 9: how many are asked for; day and month by the clock of who asks, in which it will count what it uses, and
# which must have room, too: a refusal tells the last of all these that has none; then of each: kind, subject, limit,
# need, and how much more may be used within the next slice. Kinds: r, t, u a minute's requests, tokens, calls;
# q requests of the month; c places; d, m, a what a day's, a month's and a total budget must cover; h what is held
# against all three. A refusal tells last whether what is held alone stands against it, and not what was spent.
TAKE = Script(
    _OF_PROXY
    + """
if not renew() then return {0} end
local live = names()
local asks = {}
for index = 12, #ARGV, 5 do
  asks[#asks + 1] = {ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2]), tonumber(ARGV[index + 3]),
    tonumber(ARGV[index + 4])}
end
local field_of = {q = 'k', c = 'c', d = 'h', m = 'h', a = 'h'}
local needs_account = false
local fields, sums, spare = {'alive'}, {}, {}
for index, ask in ipairs(asks) do
  local field = field_of[ask[1]]
  if field then
    fields[#fields + 1] = field .. '|' .. ask[2]
    fields[#fields + 1] = field .. 's|' .. ask[2]
    sums[index], spare[index] = 0, 0
    if field ~= 'c' then needs_account = true end
  end
end
if needs_account then
  local state = redis.call('HMGET', account, 'ready', 'awaited', 'grace')
  if not state[1] then
    if not state[3] then return {1} end
    if now < tonumber(state[3]) then
      for name in string.gmatch(state[2], '%S+') do
        if redis.call('HEXISTS', account, 'j|' .. name) == 0 then return {1} end
      end
    end
    redis.call('HSET', account, 'ready', 1)
    redis.call('PERSIST', account)
    redis.call('HDEL', account, 'awaited', 'grace')
  end
end
if #fields > 1 then
  for _, name in ipairs(live) do
    local values = redis.call('HMGET', held(name), unpack(fields))
    local at = 2
    for index, ask in ipairs(asks) do
      if sums[index] then
        if ask[1] ~= 'c' or number(values[1]) > now then
          sums[index] = sums[index] + number(values[at])
          if name ~= series then spare[index] = spare[index] + number(values[at + 1]) end
        end
        at = at + 2
      end
    end
  end
end

local day = math.floor(now / 86400000)
local shifted = day + 719468
local era = math.floor(shifted / 146097)
local of_era = shifted - era * 146097
local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096))
  / 365)
local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
local from_march = math.floor((5 * of_year + 2) / 153)
local month = (year + era * 400) * 12 + from_march + 2

local slot_of = {q = 2, d = 3, m = 2, a = 1}
local periods, own = slots(day, month), slots(tonumber(ARGV[10]), tonumber(ARGV[11]))
local function spent_in(slot, kind, subject)
  local total = 0
  for _, value in ipairs(redis.call('HMGET', account, 'L|' .. subject .. '|' .. slot[1],
    'P|' .. subject .. '|' .. slot[1])) do
    local period, nanos, requests = parsed(value)
    if period == slot[2] then total = total + (kind == 'q' and requests or nanos) end
  end
  return total
end

-- The most of both clocks' periods, and the later one of which more than `room` was spent.
local function spent(kind, subject, room)
  local place, most, full = slot_of[kind], 0, 0
  for _, slot in ipairs(own[place][2] == periods[place][2] and {own[place]} or {own[place], periods[place]}) do
    local total = spent_in(slot, kind, subject)
    most = math.max(most, total)
    if total > room then full = math.max(full, slot[2]) end
  end
  return most, full
end

local lefts = {}
for index, ask in ipairs(asks) do
  local kind, subject, limit, need = ask[1], ask[2], ask[3], ask[4]
  if kind == 'h' then
    lefts[index] = 0
  elseif sums[index] then
    local used_up, full = 0, 0
    if kind ~= 'c' then used_up, full = spent(kind, subject, limit - sums[index] - need) end
    lefts[index] = limit - sums[index] - used_up
    if need > 0 and lefts[index] < need then
      local back = spare[index] > 0 and lefts[index] + spare[index] >= need
      local is_held = kind ~= 'c' and used_up + need <= limit
      return {2, index, -1, back and slice or 0, #live, full, is_held and 1 or 0}
    end
  else
    local key = prefix .. 'w|' .. kind .. '|' .. subject
    local sum = used(key)
    lefts[index] = limit - sum
    if need > 0 and lefts[index] < need then
      if need > limit then return {2, index, -1, 0, #live, 0, 0} end
      local sliced = redis.call('HMGET', key, 'x', 'y')
      local back = number(sliced[2]) - now
      if back <= 0 or lefts[index] + number(sliced[1]) < need then back = 0 end
      local places, all = {}, redis.call('HGETALL', key)
      for at = 1, #all, 2 do
        local place = tonumber(all[at])
        if place then places[#places + 1] = {place, tonumber(all[at + 1])} end
      end
      table.sort(places, function(one, other) return one[1] < other[1] end)
      local wait = window
      for _, place in ipairs(places) do
        sum = sum - place[2]
        if sum + need <= limit then
          wait = (place[1] + 1) * bucket + window - now
          break
        end
      end
      return {2, index, math.max(1, wait), back, #live, 0, 0}
    end
  end
end

local told = {3, #live, redis.call('HGET', account, 'p|' .. series) or ''}
for index, ask in ipairs(asks) do
  local kind, subject, need, extra = ask[1], ask[2], ask[4], 0
  local left, place, rest = lefts[index] - need, 0, 0
  if ask[5] > 0 and left > 0 then extra = math.min(ask[5], math.floor(left / 8)) end
  if kind == 'h' then
    change('h|' .. subject, need)
  elseif kind == 'q' or kind == 'c' then
    local field = kind == 'q' and 'k' or 'c'
    change(field .. '|' .. subject, need + extra)
    if extra > 0 then redis.call('HINCRBY', held(series), field .. 's|' .. subject, text(extra)) end
  elseif not sums[index] then
    local key = prefix .. 'w|' .. kind .. '|' .. subject
    if need + extra > 0 then
      local at = extra > 0 and now + slice or now
      place = use(key, need + extra, at)
      if extra > 0 then
        local sliced = redis.call('HMGET', key, 'x', 'y')
        local others = number(sliced[2]) > now and number(sliced[1]) or 0
        redis.call('HSET', key, 'x', text(others + extra), 'y', text(at))
      end
    end
    local last = redis.call('HGET', key, 'l')
    if last then rest = math.max(0, (tonumber(last) + 1) * bucket + window - now) end
  end
  told[#told + 1] = {extra, left - extra, place, rest}
end
return told
"""
)
