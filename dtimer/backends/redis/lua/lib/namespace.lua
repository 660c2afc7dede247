-- One namespace: its keys, its clock, its place in history. Included first by every script.
-- KEYS  the nine keys of the namespace, in this order
-- ARGV  1 an epoch, used if the namespace is new; 2 the prefix of its channels;
--       3 the host's time in us, for tests only, else empty: the server's TIME;
--       4 in how many partitions the namespace is, this being one of them
-- What an operation takes itself starts at ARGV[5].

local META, QUEUE, RECORDS, STATES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local RING, NODES, LIVES, LETTERS, BURIED = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local FIRST = 5 -- the operation's first own argument

-- Lua cannot roll back, so types are checked before anything is written (F5).
-- Sizes are asked for: an answer is no table, as that of TYPE is, and so costs half as much.
local size_of = {'HLEN', 'ZCARD', 'HLEN', 'HLEN', 'ZCARD', 'HLEN', 'ZCARD', 'HLEN', 'ZCARD'}
for i = 1, 9 do
  local size = redis.pcall(size_of[i], KEYS[i])
  if type(size) == 'table' then
    local found = redis.call('TYPE', KEYS[i]).ok
    if not string.find(size.err, 'WRONGTYPE', 1, true) then return size end
    return redis.error_reply('DTCORRUPT ' .. KEYS[i] .. ' is a ' .. found .. ', and does not know ' .. size_of[i])
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
  local number = tonumber(text)
  return number and number >= 0 and number % 1 == 0 and number
end

local epoch, seq, last, skew = meta[2], whole(meta[3]), whole(meta[4]), whole(meta[5])
local arm, arm_due, arm_at = meta[6], whole(meta[7]), whole(meta[8]) -- arm: a node, or empty
local position, dropped = whole(meta[9]), whole(meta[10])
if not (epoch and seq and last and skew and arm and arm_due and arm_at and position and dropped) then
  return redis.error_reply('DTCORRUPT ' .. META .. ' lacks a field or holds something that is not a number')
end
local skew_was, position_was, dropped_was = skew, position, dropped
local arm_was, arm_due_was, arm_at_was = arm, arm_due, arm_at

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

-- Whole numbers as text; `..` and tostring would lose digits. (What a command is given as a number loses none.)
local function int(number)
  return string.format('%d', number)
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

-- Only what has changed: each field costs as much as a small command.
local function save()
  if is_new then
    redis.call('HSET', META, 'schema', '1', 'epoch', epoch, 'seq', seq, 'last', last, 'skew', skew, 'arm', arm,
      'arm_due', arm_due, 'arm_at', arm_at, 'position', position, 'dropped', dropped)
    if ARGV[4] ~= '1' then redis.call('HSET', META, 'partitions', ARGV[4]) end
    return
  end
  redis.call('HSET', META, 'seq', seq, 'last', last)
  if arm ~= arm_was or arm_due ~= arm_due_was or arm_at ~= arm_at_was then
    redis.call('HSET', META, 'arm', arm, 'arm_due', arm_due, 'arm_at', arm_at)
  end
  if position ~= position_was then redis.call('HSET', META, 'position', position) end
  if skew ~= skew_was or dropped ~= dropped_was then redis.call('HSET', META, 'skew', skew, 'dropped', dropped) end
end

-- The reply of a read: the current place in history (O1).
local function shown(value)
  if is_new then save() end
  return {epoch, seq, at, skew, announced, value}
end
