-- A part of the upgrade from schema 1 to schema 2, while nothing else changes the namespace (F7).
-- What has another form than that of schema 1 stays as it is: it was upgraded before, or dtimer did not write it.
-- KEYS     the nine keys of the namespace, in the usual order
-- ARGV     what: 'times' gives each dead letter a time of burial of its own; there are 10,000 at most;
--          'states' and 'letters' upgrade some, from a rank on, and this many at most
-- returns  the rank from which to go on, or -1; how many were upgraded
local META, QUEUE, RECORDS, STATES, LETTERS, BURIED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[8], KEYS[9]

local schema, counts = unpack(redis.call('HMGET', META, 'schema', 'counts'))
if schema ~= '1>LIMITS.SCHEMA' then
  return redis.error_reply('DTSCHEMA the namespace is not being upgraded any more')
end
local last = tonumber(string.match(counts or '', '^%d+ (%d+)') or 0)

local function int(number)
  return string.format('%d', number)
end
--@include records

local function time_of(score)
  return math.min(math.max(tonumber(score), 0), 9007199254740992)
end

-- In schema 1 all that one claim buried had one time. Their order stays.
local function separate()
  local entries = redis.call('ZRANGE', BURIED, 0, -1, 'WITHSCORES')
  local before, moved = -1, {}
  for i = 2, #entries, 2 do
    local time = time_of(entries[i])
    if time <= before then
      time = before + 1
      moved[#moved + 1] = int(time)
      moved[#moved + 1] = entries[i - 1]
    end
    before = time
  end
  for i = 1, #moved, 1000 do redis.call('ZADD', BURIED, unpack(moved, i, math.min(i + 999, #moved))) end
  return {-1, #moved / 2}
end

local BYTES_MAX = 1048576 -- read and written in some ms
local bytes = 0

-- Schema 1: 'number counted refusals nonce expires', filled up with spaces. It kept no time of the first refusal, so
-- refusals are counted from the next one on; nor the node; nor when it was due, which only an expiry tells.
local function upgrade_state(id, score)
  local state = redis.call('HGET', STATES, id)
  local number, counted, nonce, expires = string.match(state or '', '^(%d+) (%d+) %d+ (%S+) ([%d-]+) *$')
  if not number or #number > 15 or #counted > 15 or #expires > 16 then return 0 end
  local due = math.min(score, last)
  if expires ~= '-' then
    local record = redis.call('HGET', RECORDS, id)
    bytes = bytes + #(record or '')
    local read = read_record(record)
    if read and read.expires_after then due = (tonumber(expires) or 0) - read.expires_after end
  end
  write_state(id, {
    number = tonumber(number), counted = tonumber(counted), nonce = nonce ~= '-' and nonce or nil, node = '-',
    due = math.max(due, 0),
  })
  return 1
end

-- Schema 1: 'buried reason counted length\n' detail record. Of the deliveries it kept those that counted.
local function upgrade_letter(member, score)
  local letter = redis.call('HGET', LETTERS, member) or ''
  bytes = bytes + #letter
  local _, stop, reason, counted, length = string.find(letter, '^%d+ (%a+) (%d+) (%d+)\n')
  if not stop then return 0 end
  local buried = int(score)
  local header = table.concat({buried, reason, counted, length, counted, buried, '0\n'}, ' ')
  redis.call('HSET', LETTERS, member, header .. string.sub(letter, stop + 1))
  return 1
end

if ARGV[1] == 'times' then return separate() end
local key, upgrade = QUEUE, upgrade_state
if ARGV[1] == 'letters' then key, upgrade = BURIED, upgrade_letter end
local first, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local entries = redis.call('ZRANGE', key, first, first + most - 1, 'WITHSCORES')
local upgraded, seen = 0, 0
while 2 * seen < #entries and bytes < BYTES_MAX do
  upgraded = upgraded + upgrade(entries[2 * seen + 1], time_of(entries[2 * seen + 2]))
  seen = seen + 1
end
return {seen == 0 and -1 or first + seen, upgraded}
