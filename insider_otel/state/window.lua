-- The rolling window of window.py on a pool's record in Redis: the same steps, under the same names.
--
-- A list of moments is a string, ascending, of whole microseconds in eight bytes each; its members are those from number
-- `first` to before number `stop`. That of the uses stays in Redis, and what is needed of it is read; that of the free
-- ones is short, and at hand.

local BYTES = 8
local DAY = 86400000000
local MIDNIGHT_GUARD = 2000000

local uses = {first = 0, stop = 0}
local free = {first = 0, stop = 0, bytes = ""}

-- Lua and some servers write large numbers rounded, or as 1e+15.
local function digits(number)
  return string.format("%.0f", number)
end

local function packed(moment, times)
  return string.rep(struct.pack(">i8", moment), times)
end

function uses.read(from, to)
  if from >= to then return "" end
  return redis.call("GETRANGE", uses.key, digits(from * BYTES), digits(to * BYTES - 1))
end

local function slice(bytes, from, to)
  return string.sub(bytes, from * BYTES + 1, to * BYTES)
end

function free.read(from, to)
  return slice(free.bytes, from, to)
end

local function list_of(bytes)
  return {first = 0, stop = #bytes / BYTES, read = function(from, to) return slice(bytes, from, to) end}
end

local function set_free(bytes)
  free.bytes, free.stop = bytes, #bytes / BYTES
end

local function at(list, index)
  return (struct.unpack(">i8", list.read(index, index + 1)))
end

local function last(list)
  return at(list, list.stop - 1)
end

local function is_empty(list)
  return list.first >= list.stop
end

-- The number of the first member that a condition holds for; it holds for all after it.
local function first_where(list, holds)
  local low, high, step = list.first, list.stop, 1
  -- Mostly it is none of them, or one of the first.
  if low < high and not holds(at(list, high - 1)) then return high end
  while low + step < high and not holds(at(list, low + step - 1)) do
    low, step = low + step, step * 4
  end
  high = math.min(low + step - 1, high)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if holds(at(list, middle)) then high = middle else low = middle + 1 end
  end
  return low
end

local function bisect_left(list, moment)
  return first_where(list, function(member) return member >= moment end)
end

local function bisect_right(list, moment)
  return first_where(list, function(member) return member > moment end)
end

local function overwrite(index, bytes)
  if bytes ~= "" then redis.call("SETRANGE", uses.key, digits(index * BYTES), bytes) end
end

local function append(moment, times)
  overwrite(uses.stop, packed(moment, times))
  uses.stop = uses.stop + times
end

local function window_end(moment, limit)
  if limit.calendar then return moment - moment % DAY + DAY + MIDNIGHT_GUARD end
  return moment + limit.window
end

local function last_expired(now, limit)
  if limit.calendar then
    local guarded = now - MIDNIGHT_GUARD
    return guarded - guarded % DAY - 1
  end
  return now - limit.window
end

-- How many uses of a moment are neither forgotten nor free.
local function count(moment)
  local held = bisect_right(uses, moment) - bisect_left(uses, moment)
  return held - (bisect_right(free, moment) - bisect_left(free, moment))
end

-- Let uses of one moment be uses of a later one.
local function move(moment, to, cost)
  local held = math.min(cost, count(moment))
  if to > moment and held > 0 then
    local first = bisect_left(uses, moment)
    overwrite(first, uses.read(first + held, bisect_right(uses, to)) .. packed(to, held))
  end
end

local function mark_free(slot, cost)
  local index = bisect_left(free, slot)
  local marked = packed(slot, math.min(cost, count(slot)))
  set_free(free.read(0, index) .. marked .. free.read(index, free.stop))
end

-- Use at one moment what is free at another, which is not later.
local function take(slot, to, cost)
  local index = bisect_left(free, slot)
  set_free(free.read(0, index) .. free.read(index + cost, free.stop))
  move(slot, to, cost)
end

-- Drop what is free and comes last: nothing was promised on the strength of it.
local function trim()
  while not is_empty(free) and last(free) == last(uses) do
    set_free(free.read(0, free.stop - 1))
    uses.stop = uses.stop - 1
  end
end

-- Drop what was given back if nobody waits: nothing was promised beside it.
local function drop_free(now)
  if is_empty(free) or last(uses) > now then return end
  local start = bisect_left(uses, at(free, 0))
  local held, kept, done = list_of(uses.read(start, uses.stop)), {}, 0
  for index = 0, free.stop - 1 do
    local next = math.max(bisect_left(held, at(free, index)), done)
    table.insert(kept, held.read(done, next))
    done = next + 1
  end
  table.insert(kept, held.read(done, held.stop))
  overwrite(start, table.concat(kept))
  uses.stop = uses.stop - free.stop
  set_free("")
end

-- Drop what no longer counts; the bytes go when the record is saved.
local function forget(limit, now)
  local expired = bisect_right(uses, last_expired(now, limit))
  if expired > uses.first then
    set_free(free.read(bisect_right(free, at(uses, expired - 1)), free.stop))
    uses.first = expired
  end
end

-- The moment, `from` or later, at which a use fits after all that are not free and not after `from`.
local function room(limit, from, cost)
  local before = bisect_right(uses, from) - (limit.count - cost) - 1
  local till, skipped = bisect_right(free, from), 0
  while before - skipped >= uses.first do
    local moment = at(uses, before - skipped)
    local freed = till - bisect_left(free, moment)
    if freed == skipped then return math.max(from, window_end(moment, limit)) end
    skipped = freed
  end
  return from
end

-- The earliest slots that were given back and can be used as one; fewer than `cost` if there are no more.
local function freed(limit, start, cost)
  if is_empty(free) then return {} end
  local newest = last(uses)
  -- Else somebody may have been promised a slot on the strength of its distance to this one.
  local movable = first_where(free, function(moment) return newest < window_end(moment, limit) end)
  local from, to = movable, free.stop
  for index = math.min(bisect_left(free, start), movable), free.stop - cost do
    if index >= movable or at(free, index) == at(free, index + cost - 1) then
      from, to = index, index + cost
      break
    end
  end
  local found = {}
  for index = from, to - 1 do table.insert(found, at(free, index)) end
  return found
end

-- Free what comes before the pool opens: whoever waits for it will find it closed, and ask anew.
local function revoke(now, opens)
  if opens <= now then return end
  local first, stop = bisect_right(free, now), bisect_left(free, opens)
  local waiting = uses.read(bisect_right(uses, now), bisect_left(uses, opens))
  if #waiting / BYTES > stop - first then
    set_free(free.read(0, first) .. waiting .. free.read(stop, free.stop))
    trim()
  end
end

local function give_back(slot, cost)
  mark_free(slot, cost)
  trim()
end

-- Count uses, as pairs of moment and cost, that were made without asking.
local function add(made)
  if #made == 0 then return end
  table.sort(made, function(one, other) return one[1] < other[1] end)
  local start = bisect_left(uses, made[1][1])
  local held, merged, done, added = list_of(uses.read(start, uses.stop)), {}, 0, 0
  for _, use in ipairs(made) do
    local next = bisect_left(held, use[1])
    table.insert(merged, held.read(done, next))
    table.insert(merged, packed(use[1], use[2]))
    done, added = next, added + use[2]
  end
  table.insert(merged, held.read(done, held.stop))
  overwrite(start, table.concat(merged))
  uses.stop = uses.stop + added
end

local function reserve(limit, now, cost, not_before, longest_wait)
  forget(limit, now)
  revoke(now, not_before)
  drop_free(now)
  cost = math.min(cost, limit.count)
  local start = math.max(now, not_before)
  local found = freed(limit, start, cost)
  if #found > 0 and #found == cost then
    start = math.max(start, found[#found])
  elseif not is_empty(uses) then
    -- After all others: who came earlier is served earlier.
    start = math.max(start, last(uses))
  end
  local slot = room(limit, start, cost)
  if slot - now > longest_wait then return slot, false end
  for _, moment in ipairs(found) do take(moment, slot, 1) end
  append(slot, cost - #found)
  return slot, true
end

local function confirm(limit, slot, now, cost, not_before, longest_wait)
  cost = math.min(cost, limit.count)
  local due = math.max(now, slot)
  local is_held = count(slot) >= cost
  -- Its own place does not stand in its way.
  mark_free(slot, cost)
  local later = room(limit, due, cost)
  -- A place is gone if it was forgotten, or if as many as the limit allows have come since.
  if is_held and not_before <= due and later < window_end(slot, limit) then
    if later <= math.max(due, now + longest_wait) then
      take(slot, later, cost)
      return later, true
    end
    trim()
    return later, false
  end
  trim()
  return reserve(limit, now, cost, not_before, longest_wait)
end

local function correct(slot, cost, actual, late, now)
  if actual > 0 and slot > now then
    return -- a moment of another clock: the pool was held by another kind of limit then
  end
  local kept = math.min(actual, cost)
  give_back(slot, cost - kept)
  local moment = math.min(slot + late, math.max(now, slot))
  if moment > slot and kept > 0 then
    if count(slot) > 0 then
      move(slot, moment, kept)
    else
      -- Its slot is forgotten, but its use may still count.
      add({{moment, kept}})
    end
  end
  if actual > cost then add({{moment, actual - cost}}) end
end

local function used(limit, now)
  forget(limit, now)
  return bisect_right(uses, now) - uses.first - bisect_right(free, now)
end
