-- One namespace: its keys, its clock, its place in history. Included first by every script.
-- KEYS  the nine keys of the namespace, in this order
-- ARGV  1 an epoch, used if the namespace is new; 2 the prefix of its channels;
--       3 the host's time in us, for tests only, else empty: the server's TIME;
--       4 in how many partitions the namespace is, this being one of them
-- What an operation takes itself starts at ARGV[5].

local META, QUEUE, RECORDS, STATES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local RING, NODES, LIVES, LETTERS, BURIED = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local FIRST = 5 -- the operation's first own argument
--@limits

-- Lua cannot roll back, so types are checked before anything is written (F5).
local types = {'hash', 'zset', 'hash', 'hash', 'zset', 'hash', 'zset', 'hash', 'zset'}
for i = 1, 9 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= types[i] and found ~= 'none' then
    return redis.error_reply('DTCORRUPT ' .. KEYS[i] .. ' is a ' .. found .. ', not a ' .. types[i])
  end
end

local meta = redis.call('HMGET', META, 'schema', 'epoch', 'seq', 'last', 'skew', 'arm', 'arm_due', 'arm_at', 'position',
  'dropped', 'partitions')
local is_new = not meta[1]
if is_new then
  meta = {'1', ARGV[1], '0', '0', '0', '', '0', '0', '0', '0'}
elseif not string.find(meta[1], '^1%.') and meta[1] ~= '1' then
  return redis.error_reply('DTSCHEMA the namespace has schema ' .. meta[1] .. ', this is schema 1')
end

-- Who counts the partitions differently would look for events where they are not.
if not is_new and (meta[11] or '1') ~= ARGV[4] then
  return redis.error_reply('DTPARTITIONS the namespace is in ' .. (meta[11] or '1') .. ' partitions, not in ' .. ARGV[4]
    .. '; see dtimer migrate-partitions')
end

-- Lua takes 'nan' and 'inf' for numbers, too.
local function whole(text)
  return text and #text <= 16 and string.find(text, '^%d+$') and tonumber(text)
end

local epoch, seq, last, skew = meta[2], whole(meta[3]), whole(meta[4]), whole(meta[5])
local arm, arm_due, arm_at = meta[6], whole(meta[7]), whole(meta[8]) -- arm: a node, or empty
local position, dropped = whole(meta[9]), whole(meta[10])
if not (epoch and seq and last and skew and arm and arm_due and arm_at and position and dropped) then
  return redis.error_reply('DTCORRUPT ' .. META .. ' lacks a field or holds something that is not a number')
end

-- The store's time, read once (T1); it never goes back (T2).
local at
if ARGV[3] ~= '' then
  at = tonumber(ARGV[3]) + skew
else
  local time = redis.call('TIME')
  at = time[1] * 1000000 + time[2] + skew
end
if at < last - LIMITS.CLOCK_STEP_US then skew = skew + last - at end
at = math.max(at, last)

-- Whole numbers as text; tostring would lose digits.
local function int(number)
  return string.format('%.0f', number)
end

-- A time from a sorted set, nil if there is none. Somebody else's may be endless, which no reply can hold.
local TIME_MAX = 9007199254740992 -- 2^53
local function time_of(score)
  return score and math.min(math.max(tonumber(score), 0), TIME_MAX)
end

-- A microsecond that nobody else was given (T4).
local function tick()
  last = math.max(last + 1, at)
  return last
end

-- When something is due: '+' and a delay, or '=' and a time; what lies in the past is due at once (T5, T6).
local function due_time(due)
  local now, number = tick(), tonumber(string.sub(due, 2))
  if string.sub(due, 1, 1) == '+' then number = now + number end
  return math.max(now, number)
end

-- A server that is out of memory lets a script write anything once it has written something that needs none.
-- What ends or takes events calls this first, so that a full store can be emptied (F5).
local function write_though_full()
  redis.call('HDEL', META, '-')
end

local announced = {} -- node, due, 1 if somebody heard it or 0; three for each

local function save()
  if is_new then redis.call('HSET', META, 'schema', '1', 'epoch', epoch) end
  if is_new and ARGV[4] ~= '1' then redis.call('HSET', META, 'partitions', ARGV[4]) end
  redis.call('HSET', META, 'seq', int(seq), 'last', int(last), 'skew', int(skew), 'arm', arm, 'arm_due', int(arm_due),
    'arm_at', int(arm_at), 'position', int(position), 'dropped', int(dropped))
end

-- The reply of a read: the current place in history (O1).
local function shown(value)
  if is_new then save() end
  return {epoch, seq, at, skew, announced, value}
end
