-- What MemoryStore.perform does, as one step of the server, after the functions of window.lua.
--
-- KEYS: the pool's record, its uses, its workers, and the claim if there is one.
-- ARGV: what to do, what is asked as JSON, and who asks.

local POOL, USES, WORKERS, CLAIM = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ask = cjson.decode(ARGV[2])
local SECOND = 1000000
local WORKER_LEAVES_AFTER = 60 * SECOND
-- How long a record outlives all that it says: a limit that Insider named is good to know tomorrow.
local KEPT_FOR = 2 * DAY

local function read_limit(text)
  if not text or text == "" then return nil end
  local count, window, calendar = unpack(cjson.decode(text))
  return {count = count, window = math.floor(window * SECOND + 0.5), calendar = calendar}
end

local function forget_uses()
  uses.first, uses.stop, uses.blocks = 0, 0, {}
  for _, list in ipairs({free, gone, kept}) do set(list, "") end
end

local function load_pool()
  local fields = redis.call(
    "HMGET", POOL, "born", "last", "skew", "closed", "first", "stop", "limit", "learned", "calendar", "free", "gone", "kept"
  )
  local time = redis.call("TIME")
  local wall = time[1] * SECOND + time[2]
  -- Where the server's clock was set back, the pool's goes on from where it was.
  local now = math.max(wall + (tonumber(fields[3]) or 0), (tonumber(fields[2]) or 0) + 1)
  local pool = {
    exists = fields[1],
    born = tonumber(fields[1]) or now,
    wall = wall,
    now = now,
    closed = tonumber(fields[4]) or 0,
    limit = fields[7],
    learned = fields[8],
    -- Where its moments are those of the wall clock, the latest that this has shown.
    calendar_clock = tonumber(fields[9]) or 0,
  }
  uses.key, uses.first, uses.stop = USES, tonumber(fields[5]) or 0, tonumber(fields[6]) or 0
  set(free, fields[10] or "")
  set(gone, fields[11] or "")
  set(kept, fields[12] or "")
  if redis.call("STRLEN", USES) < uses.stop * BYTES then
    -- The server needed the room of the uses: what is left of the record is one that has lost its memory.
    pool.born = now
    forget_uses()
  end
  return pool
end

local function save_pool(pool)
  -- Moving the rest to the front once for as many as were dropped costs each of them one step.
  if uses.first * 2 > uses.stop then
    redis.call("SET", USES, uses.read(uses.first, uses.stop))
    uses.first, uses.stop, uses.blocks = 0, uses.stop - uses.first, {}
  end
  redis.call(
    "HSET", POOL, "born", digits(pool.born), "last", digits(pool.now), "skew", digits(pool.now - pool.wall),
    "closed", digits(pool.closed), "first", digits(uses.first), "stop", digits(uses.stop),
    "limit", pool.limit or "", "learned", pool.learned or "", "calendar", digits(pool.calendar_clock),
    "free", free.bytes, "gone", gone.bytes, "kept", kept.bytes
  )
  local limit = read_limit(pool.limit)
  local counts_for = limit and limit.window or 0
  if not is_empty(uses) then counts_for = counts_for + math.max(last(uses) - pool.now, last(uses) - pool.wall, 0) end
  local kept_for = math.max(counts_for, pool.closed - pool.now) + KEPT_FOR
  for number = 1, 3 do redis.call("PEXPIRE", KEYS[number], digits(kept_for / 1000)) end
end

-- A calendar day begins and ends by the clock on the wall. One that is set back stands still until it is where it was; one
-- that was wrong by more than a day has counted nothing that is worth keeping.
local function window_now(pool)
  if pool.calendar_clock == 0 then return pool.now end
  if pool.calendar_clock > pool.wall + DAY then
    pool.calendar_clock = pool.wall
    forget_uses()
  end
  pool.calendar_clock = math.max(pool.calendar_clock, pool.wall)
  return pool.calendar_clock
end

-- Hold the pool to a limit from now on.
local function hold(pool, limit)
  pool.limit = ask.limit
  if limit and limit.calendar ~= (pool.calendar_clock > 0) then
    -- Moments of one clock say nothing on the other.
    pool.calendar_clock = limit.calendar and 1 or 0
    forget_uses()
  end
end

local function sees_workers_since(pool, limit)
  return digits(pool.now - math.max(WORKER_LEAVES_AFTER, limit and limit.window or 0))
end

local function count_workers(pool, limit)
  return math.max(redis.call("ZCOUNT", WORKERS, sees_workers_since(pool, limit), "+inf"), 1)
end

local function see_worker(pool, limit)
  -- One that knows of another record has yet to tell this one what it has used.
  if ARGV[3] ~= "" and (not ask.born or ask.born == pool.born) then
    redis.call("ZADD", WORKERS, digits(pool.now), ARGV[3])
    redis.call("ZREMRANGEBYSCORE", WORKERS, "-inf", "(" .. sees_workers_since(pool, limit))
  end
end

local function read_claim()
  local claim = redis.call("GET", CLAIM)
  if not claim then return {since = 0, expires = 0, done = false} end
  local since, expires, done = struct.unpack(">i8i8B", claim)
  return {since = since, expires = expires, done = done == 1}
end

local function write_claim(since, expires, done, now)
  if expires <= now then
    redis.call("DEL", CLAIM)
  else
    local value = struct.pack(">i8i8B", since, expires, done and 1 or 0)
    redis.call("SET", CLAIM, value, "PX", digits(math.ceil((expires - now) / 1000)))
  end
end

-- What is known of a content, microseconds since the call that has it began, and the token if the caller may have it.
local function ask_claim(now)
  local held = read_claim()
  if held.expires > now and (held.done or held.since ~= ask.claim.token) then
    return held.done and "done" or "in_flight", math.max(now - held.since, 0), nil
  end
  return "claimed", 0, held.expires > now and held.since or now
end

local function report_claim(now)
  local claim, held = ask.claim, read_claim()
  -- A claim whose lease is over is still the caller's if nobody took it.
  local mine = not held.done and claim.token and (held.since == claim.token or held.since == 0)
  local lasts_until = now + claim.lasts
  if claim.becomes == "done" then
    write_claim(mine and claim.token or now, math.max(lasts_until, not mine and held.expires or 0), true, now)
  elseif claim.becomes == "keep" and mine then
    write_claim(claim.token, lasts_until, false, now)
  elseif claim.becomes == "release" and mine then
    redis.call("DEL", CLAIM)
  end
end

local function apply_corrections(pool)
  local now, limit = window_now(pool), read_limit(pool.limit)
  for _, each in ipairs(ask.corrections) do
    local slot, cost, actual, late = unpack(each)
    correct(limit, slot, cost, actual, late, now)
  end
end

local function admit()
  local pool, limit = load_pool(), read_limit(ask.limit)
  hold(pool, limit)
  local claim, age, token
  if ask.claim then claim, age, token = ask_claim(pool.now) end
  local closed_for = math.max(pool.closed - pool.now, 0)
  local now = limit and window_now(pool) or pool.now
  if limit then
    apply_corrections(pool)
    local past = {}
    for _, use in ipairs(ask.past) do table.insert(past, {now - use[1], use[2]}) end
    add(past)
  end
  -- Where the wall clock was set back, the window's stands still until that is where it was; a closing goes on.
  local shown = limit and limit.calendar and math.min(now, pool.wall) or now
  local opens = math.max(now, shown + closed_for)
  local slot, taken = now, false
  if claim == "done" then
    closed_for = 0
  elseif not limit then
    slot, taken = opens, closed_for <= ask.longest
  elseif ask.holding then
    slot, taken = confirm(limit, ask.holding, now, ask.cost, opens, ask.longest)
  else
    slot, taken = reserve(limit, now, ask.cost, opens, ask.longest)
  end
  local wait = slot > now and slot - shown or closed_for
  if taken and shown < now and wait > ask.longest then
    give_back(slot, math.min(ask.cost, limit.count))
    taken = false
  end
  if token and not taken and not ask.claim.token then
    claim, age, token = nil, nil, nil
  end
  if token then write_claim(token, pool.now + ask.claim.lease, false, pool.now) end
  local in_use = limit and used(limit, now) or 0
  see_worker(pool, limit)
  save_pool(pool)
  return {
    wait, taken and slot, closed_for > 0 and 1 or 0, in_use, count_workers(pool, limit), pool.born,
    pool.learned ~= "" and pool.learned or false, claim or false, age or 0, token or false,
  }
end

local function report()
  local pool = load_pool()
  apply_corrections(pool)
  if ask.closed_for then pool.closed = math.max(pool.closed, pool.now + ask.closed_for) end
  if ask.learned then pool.learned = ask.learned end
  if ask.claim then report_claim(pool.now) end
  save_pool(pool)
  return false
end

-- Reads only, so that it can be asked of a replica.
local function list()
  local pool = load_pool()
  if not pool.exists then return false end
  local limit = read_limit(pool.limit)
  local in_use = limit and used(limit, window_now(pool)) or 0
  return {
    pool.limit ~= "" and pool.limit or false, in_use, math.max(pool.closed - pool.now, 0), count_workers(pool, limit),
    pool.learned ~= "" and pool.learned or false,
  }
end

return ({admit = admit, report = report, list = list})[ARGV[1]]()
