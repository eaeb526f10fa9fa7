-- The rolling window of window.py and expiry.py on a pool's record in Redis: the same steps, under the same names.
--
-- A list of moments is a string, ascending, of whole microseconds in eight bytes each; its members are those from number
-- `first` to before number `stop`. That of the uses stays in Redis, and what is needed of it is read; the others are
-- short, and at hand.

local BYTES = 8
local DAY = 86400000000
local MIDNIGHT_GUARD = 2000000
local GRAIN = 16
local LONGEST_LINE = 500
-- Members that are read at once, and kept: searches come back to the same ones, and reading takes as long as many steps here.
local BLOCK = 64

local uses = {first = 0, stop = 0, blocks = {}}

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

local function member(bytes, index)
  return (struct.unpack(">i8", bytes, index * BYTES + 1))
end

function uses.at(index)
  local number = math.floor(index / BLOCK)
  local bytes = uses.blocks[number]
  if not bytes then
    bytes = uses.read(number * BLOCK, (number + 1) * BLOCK)
    uses.blocks[number] = bytes
  end
  return member(bytes, index - number * BLOCK)
end

-- What was read from a number on is no longer what is there.
local function forget_blocks(index)
  for number in pairs(uses.blocks) do
    if (number + 1) * BLOCK > index then uses.blocks[number] = nil end
  end
end

local function slice(bytes, from, to)
  return string.sub(bytes, from * BYTES + 1, to * BYTES)
end

local function set(list, bytes)
  list.bytes, list.stop = bytes, #bytes / BYTES
end

local function list_of(bytes)
  local list = {first = 0}
  list.read = function(from, to) return slice(list.bytes, from, to) end
  list.at = function(index) return member(list.bytes, index) end
  set(list, bytes)
  return list
end

local free, gone, kept = list_of(""), list_of(""), list_of("")

local function last(list)
  return list.at(list.stop - 1)
end

local function is_empty(list)
  return list.first >= list.stop
end

-- The number of the first member that a condition holds for; it holds for all after it.
local function first_where(list, holds)
  local low, high, step = list.first, list.stop, 1
  -- Mostly it is none of them, or one of the last or of the first.
  if low < high and not holds(list.at(high - 1)) then return high end
  if low + BLOCK < high and not holds(list.at(high - BLOCK - 1)) then low = high - BLOCK end
  while low + step < high and not holds(list.at(low + step - 1)) do
    low, step = low + step, step * 4
  end
  high = math.min(low + step - 1, high)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if holds(list.at(middle)) then high = middle else low = middle + 1 end
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
  if bytes == "" then return end
  redis.call("SETRANGE", uses.key, digits(index * BYTES), bytes)
  forget_blocks(index)
end

local function append(moment, times)
  overwrite(uses.stop, packed(moment, times))
  uses.stop = uses.stop + times
end

local function window_end(moment, limit)
  if not limit.calendar then return moment + limit.window end
  local guarded = moment + MIDNIGHT_GUARD
  return guarded - guarded % DAY + DAY + MIDNIGHT_GUARD
end

local function last_expired(now, limit)
  if not limit.calendar then return now - limit.window end
  local guarded = now - MIDNIGHT_GUARD
  return guarded - guarded % DAY - MIDNIGHT_GUARD - 1
end

local function times(list, moment)
  if is_empty(list) then return 0 end
  return bisect_right(list, moment) - bisect_left(list, moment)
end

-- How many uses of a moment are neither forgotten, nor free, nor kept.
local function count(moment)
  return times(uses, moment) - times(free, moment) - times(kept, moment)
end

-- Put bytes in place of those from one number to before another.
local function splice(list, from, to, bytes)
  set(list, list.read(0, from) .. bytes .. list.read(to, list.stop))
end

-- The number of the first member that is a moment, in whatever order; nil if none is.
local function find(list, moment)
  local bytes, start = packed(moment, 1), 1
  while true do
    local found = string.find(list.bytes, bytes, start, true)
    if not found or (found - 1) % BYTES == 0 then return found and (found - 1) / BYTES end
    start = found + 1
  end
end

local function moments_of(bytes)
  local moments = {}
  for position = 1, #bytes, BYTES do moments[#moments + 1] = struct.unpack(">i8", bytes, position) end
  return moments
end

local function bytes_of(moments)
  local members = {}
  for number, moment in ipairs(moments) do members[number] = struct.pack(">i8", moment) end
  return table.concat(members)
end

-- Let moments be free too.
local function add_free(bytes)
  for _, moment in ipairs(moments_of(bytes)) do
    local index = bisect_left(free, moment)
    splice(free, index, index, packed(moment, 1))
  end
end

-- Let uses of one moment be uses of a later one, or the same; returns how many of them there are.
local function move(moment, to, cost)
  local held = math.min(cost, count(moment))
  if to > moment and held > 0 then
    local first = bisect_left(uses, moment)
    overwrite(first, uses.read(first + held, bisect_right(uses, to)) .. packed(to, held))
  end
  return held
end

local function mark_free(slot, cost)
  local index = bisect_left(free, slot)
  splice(free, index, index, packed(slot, math.min(cost, count(slot))))
end

-- Use at one moment what is free at another, which is not later.
local function take(slot, to, cost)
  local index = bisect_left(free, slot)
  splice(free, index, index + cost, "")
  move(slot, to, cost)
end

-- Drop what is free and comes last: nothing was promised on the strength of it.
local function trim()
  while not is_empty(free) and last(free) == last(uses) do
    splice(free, free.stop - 1, free.stop, "")
    uses.stop = uses.stop - 1
  end
end

-- Drop what was given back if nobody waits: nothing was promised beside it.
local function drop_free(now)
  if is_empty(free) or last(uses) > now then return end
  local start = bisect_left(uses, free.at(0))
  local held, kept, done = list_of(uses.read(start, uses.stop)), {}, 0
  for index = 0, free.stop - 1 do
    local next = math.max(bisect_left(held, free.at(index)), done)
    table.insert(kept, held.read(done, next))
    done = next + 1
  end
  table.insert(kept, held.read(done, held.stop))
  overwrite(start, table.concat(kept))
  uses.stop = uses.stop - free.stop
  set(free, "")
end

-- Drop what no longer counts; the bytes go when the record is saved.
local function forget(limit, now)
  local expired = bisect_right(uses, last_expired(now, limit))
  if expired > uses.first then
    local newest = uses.at(expired - 1)
    local unclaimed = bisect_right(kept, newest)
    splice(free, 0, bisect_right(free, newest), "")
    splice(gone, 0, unclaimed, "")
    splice(kept, 0, unclaimed, "")
    uses.first = expired
  end
end

-- The moment, `from` or later, at which a use fits after all that are not free and not after `from`.
local function room(limit, from, cost)
  local before = bisect_right(uses, from) - (limit.count - cost) - 1
  local till, skipped = bisect_right(free, from), 0
  while before - skipped >= uses.first do
    local moment = uses.at(before - skipped)
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
    if index >= movable or free.at(index) == free.at(index + cost - 1) then
      from, to = index, index + cost
      break
    end
  end
  local found = {}
  for index = from, to - 1 do table.insert(found, free.at(index)) end
  return found
end

-- The moments of so many uses, one after the other, behind all others; none of those is free. `slots` says who makes
-- each: all that one makes are made at once.
local function line_up(limit, opens, earliest, slots)
  local held = uses.stop - uses.first
  -- The use a window before the first of them, by its number; no use has a number below 0.
  local number = held - limit.count
  local start = math.max(number, 0)
  local past = moments_of(uses.read(uses.first + start, uses.first + math.max(math.min(number + #slots, held), start)))
  local place, places, taken = math.max(opens, is_empty(uses) and 0 or last(uses)) - 1, {}, {}
  for _, slot in ipairs(slots) do taken[slot] = true end
  while #places < #slots do
    local slot, next = slots[#places + 1], #places + 1
    while slots[next + 1] == slot do next = next + 1 end
    local cost = next - #places
    number = number + cost
    place = math.max(place + 1, earliest[next])
    local before = number - math.max(cost - limit.count, 0) - 1
    if before >= 0 then place = math.max(place, window_end(past[before - start + 1], limit)) end
    -- It will be told as a slot.
    while taken[place] and place ~= slot do place = place + 1 end
    for _ = 1, cost do places[#places + 1], past[#past + 1] = place, place end
  end
  return places
end

-- Keep a place for each who waits, in their order, if somebody waits for a slot before the pool opens; `woken` is the slot
-- of one who wakes, as often as it costs: it is in no place.
local function keep(limit, now, due, opens, woken)
  local waiting, freed_first, overdue = bisect_right(uses, now), bisect_right(free, now), bisect_right(kept, now)
  local early = opens - math.floor(math.min(opens - now, limit.window) / GRAIN)
  local is_early = bisect_left(uses, early) - waiting > bisect_left(free, early) - freed_first
  local is_due = not is_empty(kept) and kept.at(0) <= due and kept.at(0) < opens
  if not is_early and not is_due and #woken == 0 then return end

  local not_held, held = {}, {}
  for _, moment in ipairs(moments_of(free.read(freed_first, free.stop) .. kept.read(overdue, kept.stop))) do
    not_held[moment] = (not_held[moment] or 0) + 1
  end
  for _, slot in ipairs(moments_of(uses.read(waiting, uses.stop))) do
    if (not_held[slot] or 0) > 0 then
      not_held[slot] = not_held[slot] - 1
    else
      held[#held + 1] = slot
    end
  end

  local earliest, slots, in_line = {}, {}, 0
  local places, slots_gone = moments_of(kept.bytes), moments_of(gone.bytes)
  -- Who is in line already comes before one who is not.
  local function line_up_until(moment)
    while places[in_line + 1] and places[in_line + 1] <= moment do
      in_line = in_line + 1
      earliest[#earliest + 1], slots[#slots + 1] = places[in_line], slots_gone[in_line]
    end
  end
  for _, slot in ipairs(held) do
    -- A place that is its holder's own slot is one that its holder was told of.
    line_up_until(slot + 1)
    earliest[#earliest + 1], slots[#slots + 1] = slot + 1, slot
  end
  line_up_until(math.huge)
  if #woken > 0 then
    -- Who was told of a place has asked before it, and stays before it.
    local rank = 1
    for number, slot in ipairs(slots) do
      if earliest[number] == slot or slot < woken[1] then rank = number + 1 end
    end
    local from = math.max(woken[1], earliest[rank - 1] or 0)
    for _, slot in ipairs(woken) do
      table.insert(earliest, rank, from)
      table.insert(slots, rank, slot)
    end
  end

  uses.stop = waiting
  splice(free, freed_first, free.stop, "")
  add_free(kept.read(0, overdue))
  -- What is promised from here on is not promised beside them.
  drop_free(now)
  set(gone, bytes_of(slots))
  set(kept, bytes_of(line_up(limit, opens, earliest, slots)))
  overwrite(uses.stop, kept.bytes)
  uses.stop = uses.stop + kept.stop
end

-- The rank of who waits with a slot that is gone, and that after it; the same twice if nobody does.
local function find_in_line(slot, cost)
  local rank = find(gone, slot)
  if not rank then return 0, 0 end
  local stop = rank
  while stop < math.min(rank + cost, gone.stop) and gone.at(stop) == slot do stop = stop + 1 end
  return rank, stop
end

-- Take out of the line who waits with a slot that is gone: its rank and its places, now free; none if it is not in line.
local function leave(slot, cost)
  local rank, stop = find_in_line(slot, cost)
  local places = kept.read(rank, stop)
  splice(gone, rank, stop, "")
  splice(kept, rank, stop, "")
  add_free(places)
  return rank, places
end

-- Let those behind one who left for good have its places, one after the other, so that a later one is free. A place goes
-- no further than to those who are awake by then: who comes later would find that it has passed.
local function move_up(rank, places)
  if places == "" then return end
  local cost, stop, place = #places / BYTES, rank, moments_of(places)[1]
  for _, moment in ipairs(moments_of(places)) do
    local index = bisect_left(free, moment)
    splice(free, index, index + 1, "")
  end
  -- A place for one is none for two: it stays before one who costs more, or less.
  while stop < kept.stop and gone.at(stop) <= place do
    local slot = gone.at(stop)
    if stop + cost > kept.stop or gone.at(stop + cost - 1) ~= slot then break end
    if stop + cost < kept.stop and gone.at(stop + cost) == slot then break end
    place, stop = kept.at(stop), stop + cost
  end
  local moved = places .. kept.read(rank, stop)
  splice(kept, rank, stop, string.sub(moved, 1, #moved - #places))
  add_free(string.sub(moved, -#places))
end

local function give_back(slot, cost)
  local rank, places = leave(slot, cost)
  move_up(rank, places)
  mark_free(slot, cost - #places / BYTES)
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

-- Let go of what counts no more, and keep the places of those who wait for the pool while it is closed.
local function prepare(limit, now, due, opens)
  forget(limit, now)
  if opens > now then keep(limit, now, due, opens, {}) end
  drop_free(now)
end

-- A moment to come, or the first after it that nobody else waits for: a slot says whose it is.
local function to_wait_for(moment, now)
  local taken
  while moment > now and ((taken and taken[moment]) or (not taken and find(gone, moment))
      or times(uses, moment) > times(free, moment)) do
    if not taken then
      taken = {}
      for _, slot in ipairs(moments_of(gone.bytes)) do taken[slot] = true end
    end
    moment = moment + 1
  end
  return moment
end

-- The earliest slot from `start` on, made of one's own places, or of free ones if there are enough.
local function grant(limit, now, start, cost, longest_wait, own)
  local slot, found = nil, own ~= "" and moments_of(own) or freed(limit, start, cost)
  if #found > 0 and #found == cost then
    slot = to_wait_for(room(limit, math.max(start, found[#found]), cost), now)
  else
    -- After all others: who came earlier is served earlier. And no two who wait have the same slot.
    local newest = is_empty(uses) and now or last(uses)
    slot = room(limit, math.max(start, newest > now and newest + 1 or newest), cost)
  end
  if slot - now > longest_wait then return slot, false end
  for _, moment in ipairs(found) do take(moment, slot, 1) end
  append(slot, cost - #found)
  return slot, true
end

local function reserve(limit, now, cost, not_before, longest_wait)
  prepare(limit, now, now, not_before)
  return grant(limit, now, math.max(now, not_before), math.min(cost, limit.count), longest_wait, "")
end

local function confirm(limit, slot, now, cost, not_before, longest_wait)
  cost = math.min(cost, limit.count)
  local due = math.max(now, slot)
  if not find(gone, slot) then
    local is_forgotten = slot <= last_expired(now, limit)
    local is_held = not is_forgotten and count(slot) >= cost
    if is_held then
      -- Its own place does not stand in its way.
      mark_free(slot, cost)
      local later = room(limit, due, cost)
      if not_before <= due and later - due <= math.floor(limit.window / 2) then
        later = to_wait_for(later, now)
        local taken = later <= math.max(due, now + longest_wait)
        if taken then take(slot, later, cost) else trim() end
        return later, taken
      end
      trim()
    end
    if is_held or (is_forgotten and uses.stop - bisect_right(uses, now) <= LONGEST_LINE) then
      -- It finds the pool closed or the limit lowered, or has slept so long that others have come before it or its slot
      -- no longer counts: all who wait are moved, so that it keeps its rank.
      forget(limit, now)
      keep(limit, now, due, math.max(not_before, due), moments_of(packed(slot, cost)))
    end
  end
  prepare(limit, now, due, not_before)
  local in_line, stop = find_in_line(slot, cost)
  if in_line < stop and not_before > now then
    -- Its place may be a little before the pool opens: then the line is moved, as a whole.
    local place = kept.at(stop - 1)
    if place - now > longest_wait then
      give_back(slot, cost)
      return place, false
    end
    splice(gone, in_line, stop, packed(place, stop - in_line))
    return place, true
  end
  local rank, places = leave(slot, cost)
  local later, taken = grant(limit, now, math.max(now, not_before), cost, longest_wait, places)
  if not taken then
    move_up(rank, places)
  elseif places ~= "" and later > now then
    -- It stays in line until it is served, and keeps its rank if the pool is closed once more.
    rank = math.max(rank, bisect_left(kept, later))
    splice(gone, rank, rank, packed(later, cost))
    splice(kept, rank, rank, packed(later, cost))
  end
  trim()
  return later, taken
end

local function correct(limit, slot, cost, actual, late, now)
  -- A moment of another clock: the pool was held by another kind of limit then.
  if actual > 0 and slot > now then return end
  local moment, counted = math.min(slot + late, math.max(now, slot)), math.min(actual, cost)
  local is_forgotten = not limit or slot <= last_expired(now, limit)
  local is_gone = find(gone, slot)
  if counted > 0 and counted < cost and not is_forgotten and not is_gone then
    -- A part was given back already: this is told once more, by one who had no answer in time.
    if count(slot) < math.min(cost, limit.count) then return end
  end
  if counted < cost then give_back(slot, cost - counted) end
  if counted > 0 and is_gone then
    -- Whoever used it could not ask whether it still holds.
    give_back(slot, counted)
    is_forgotten = true
  end
  if counted > 0 and move(slot, moment, counted) == 0 then
    -- It was moved: this, too, is told once more.
    if not is_forgotten then return end
    -- Its slot is forgotten, but its use may still count.
    add({{moment, counted}})
  end
  if actual > cost then add({{moment, actual - cost}}) end
end

local function used(limit, now)
  forget(limit, now)
  return bisect_right(uses, now) - uses.first - bisect_right(free, now)
end
