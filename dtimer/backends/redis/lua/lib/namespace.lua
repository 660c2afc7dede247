-- One namespace: its keys, its clock, its place in history. Included first by every script.
-- KEYS  the nine keys of the namespace, in this order
-- ARGV  1 an epoch, used if the namespace is new; 2 the prefix of its channels;
--       3 the host's time in us, for tests only, else empty: the server's TIME;
--       4 in how many partitions the namespace is, this being one of them
--       5 the name of this server, as the connection learnt it; one that begins with ? stands for an unknown name
-- What an operation takes itself starts at ARGV[6].

local ARGV = ARGV -- a global is looked up by its name each time
local META, QUEUE, RECORDS, STATES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local RING, NODES, LIVES, LETTERS, BURIED = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local FIRST = 6 -- the operation's first own argument

local meta = redis.pcall('HMGET', META, 'schema', 'epoch', 'partitions', 'counts', 'arm', 'branch')

-- Lua cannot roll back, so the types of all keys that a script names are checked before anything is written (F5).
-- Sizes are asked for: an answer is no table, as that of TYPE is, and so costs half as much.
local wrong, problem = meta.err and META, meta.err
--@check QUEUE ZCARD
--@check RECORDS HLEN
--@check STATES HLEN
--@check RING ZCARD
--@check NODES HLEN
--@check LIVES ZCARD
--@check LETTERS HLEN
--@check BURIED ZCARD
if wrong then
  if not string.find(problem, 'WRONGTYPE', 1, true) then return {err = problem} end
  return redis.error_reply('DTCORRUPT ' .. wrong .. ' is a ' .. redis.call('TYPE', wrong).ok)
end

local is_new = not meta[1]
if is_new then
  meta = {'LIMITS.SCHEMA', ARGV[1], ARGV[4], '0 0 0 0 0', ''}
elseif meta[1] ~= 'LIMITS.SCHEMA' and not string.find(meta[1], '^LIMITS.SCHEMA%.') then
  -- Of 1>2, as it is while it is upgraded, the second one counts (F7).
  local its = string.match(meta[1], '(%d+)[%d.]*$')
  return redis.error_reply('DTSCHEMA the namespace has schema ' .. meta[1] .. ', this is schema LIMITS.SCHEMA; '
    .. (its and tonumber(its) > LIMITS.SCHEMA and 'upgrade dtimer' or 'stop its nodes and run dtimer upgrade URL'))
end

-- Who counts the partitions differently would look for events where they are not.
if (meta[3] or '1') ~= ARGV[4] then
  if string.find(meta[3] or '', '^clock%-reset ') then
    return redis.error_reply('DTCLOCK the clock of the namespace is being reset; '
      .. 'if that was interrupted, run dtimer clock-reset again')
  end
  return redis.error_reply('DTPARTITIONS the namespace is in ' .. (meta[3] or '1') .. ' partitions, not in ' .. ARGV[4]
    .. '; see dtimer migrate-partitions')
end

local epoch = string.match(meta[2] or '', '^%w+$') -- it is part of each reply, with blanks around it
local seq, last, skew, position, dropped = string.match(meta[4] or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
local arm_due, arm_at, arm = 0, 0, '' -- arm: a node, or empty
if meta[5] ~= '' then arm_due, arm_at, arm = string.match(meta[5] or '', '^(%d+) (%d+) (%S+)$') end
-- Beyond 2^53 Lua would lose digits.
local TIME_MAX = 9007199254740992
local whole = epoch and seq and arm
if whole then
  seq, last, skew, position, dropped = seq + 0, last + 0, skew + 0, position + 0, dropped + 0
  arm_due, arm_at = arm_due + 0, arm_at + 0
  -- Each by itself: after a leap of the clock by a century two of them have it.
  whole = math.max(seq, last, skew, position, dropped, arm_due, arm_at) <= TIME_MAX
end
if not whole then
  return redis.error_reply('DTCORRUPT ' .. META .. ' lacks a field or holds something that is not a number')
end
local arm_was, arm_due_was, arm_at_was = arm, arm_due, arm_at

-- The store's time, read once (T1); it never goes back (T2).
local at
if ARGV[3] ~= '' then
  at = tonumber(ARGV[3])
else
  local time = redis.call('TIME')
  at = time[1] * 1000000 + time[2]
end
-- Time that has been given out cannot be taken back, so that what no clock should show is refused.
if at > LIMITS.INSTANT_MAX_US or at + skew > LIMITS.STORE_TIME_MAX_US then
  return redis.error_reply(string.format('DTCLOCK the clock of the server shows %.0f us since 1970, and %.0f more with the '
    .. 'steps that it took back before: later than the year 2200', at, skew))
end
at = at + skew
if at < last - LIMITS.CLOCK_STEP_US then skew = skew + last - at end
at = math.max(at, last)

-- Whole numbers as text. `..` and tostring would lose digits; a command that is given a number takes longer.
local function int(number)
  return string.format('%d', number)
end

-- A time from a sorted set, nil if there is none. Somebody else's may be endless, which no reply can hold.
local function time_of(score)
  if not score then return nil end
  local time = score + 0 -- a number, without a call; and without those of math.min and math.max
  if time < 0 then return 0 end
  return time > TIME_MAX and TIME_MAX or time
end

-- A microsecond that nobody else was given (T4).
local function tick()
  last = last < at and at or last + 1
  return last
end

-- When something is due, as text. It is given as a time of day in us, or, not above 0, as a delay in us times -1;
-- what lies in the past is due at once, and what is later than the store's time can be at its end (T5, T6).
local function due_time(due)
  tick()
  local number = due + 0 -- as tonumber(due), which reads the digits twice
  local time = number > 0 and number + skew or last - number
  if time > LIMITS.STORE_TIME_MAX_US then time = LIMITS.STORE_TIME_MAX_US end
  if time == number then return number < last and int(last) or due end
  return int(math.max(time, last))
end

-- What a record says that was posted for this (T6): for a time of day ' w' and the skew, if there is any.
local function wall_field(due)
  if due + 0 <= 0 then return '' end
  return skew > 0 and ' w' .. int(skew) or ' w'
end

-- A server that is out of memory lets a script write anything once it has written something that needs none.
-- What ends or takes events calls this first, so that a full store can be emptied (F5).
local function write_though_full()
  redis.call('HDEL', META, '-')
end

-- The branch of the history, named after the server that made it (O2). One that is not known yet begins here; one that
-- is known, but not the newest, is an old name of this very server, on a connection that was made before it got another.
local server, newest, branches = ARGV[5], string.match(meta[6] or '', '^[%w_-]*$') or '', nil
if server ~= newest and server ~= '' then
  if string.byte(server) == 63 then -- ?
    newest = server
  else
    local known = redis.call('HGET', META, 'branches') or ''
    if not string.find(' ' .. known, ' ' .. server .. ' ', 1, true) then newest, branches = server, known end
  end
end

-- All branches, if this one is not among them yet, given the number before it: name and number of each, and a space.
local function with_this_branch(number)
  local all = branches .. newest .. ' ' .. int(number) .. ' '
  local _, spaces = string.gsub(all, ' ', ' ')
  if spaces > 2 * LIMITS.BRANCHES_MAX then all = string.match(all, '^%S+ %S+ (.*)$') end
  return all
end

local announced = '' -- ' node due reached' for each, reached being 1 if somebody heard it, or 0

-- Few fields, since each costs as much as a small command.
local function save()
  local counts = string.format('%d %d %d %d %d', seq, last, skew, position, dropped)
  if is_new then
    redis.call('HSET', META, 'schema', 'LIMITS.SCHEMA', 'epoch', epoch)
    if ARGV[4] ~= '1' then redis.call('HSET', META, 'partitions', ARGV[4]) end
  end
  if is_new or arm ~= arm_was or arm_due ~= arm_due_was or arm_at ~= arm_at_was then
    redis.call('HSET', META, 'counts', counts, 'arm', arm == '' and '' or string.format('%d %d %s', arm_due, arm_at, arm))
  else
    redis.call('HSET', META, 'counts', counts)
  end
end

-- The current place in history, and with it what was announced (O1).
local function place_in_history()
  return string.format('%s %d %d %d %s', epoch, seq, at, skew, newest) .. announced
end

-- The reply of a read.
local function shown(value)
  if is_new then save() end
  return {place_in_history(), value}
end
