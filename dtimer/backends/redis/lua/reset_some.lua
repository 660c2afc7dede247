-- Take the skew out of the times of some events, then of some dead letters, and at last out of the clock (T2).
-- Each run is short, and keeps in META how far it has got: see reset_begin.lua. All times are made earlier, those of
-- the queue in its order; so what is done stands before what is not, and a number says where to go on.
-- ARGV     the epoch from then on; none: take back that it was begun, unless something is done already
-- returns  1 if all is done, else 0; how many events and how many dead letters were done so far
--@include namespace
--@include records
--@include letters

write_though_full()
local by, began, events, letters = string.match(redis.call('HGET', META, 'reset') or '', '^(%d+) (%d+) (%d+) (%d+)$')
if not by then return redis.error_reply('DTCORRUPT ' .. META .. ' says of no reset of the clock how far it has got') end
by, began, events, letters = by + 0, began + 0, events + 0, letters + 0

local function remove_mark()
  local number = string.sub(ARGV[4], #'clock-reset ' + 1)
  redis.call('HDEL', META, 'reset')
  if number == '1' then redis.call('HDEL', META, 'partitions') else redis.call('HSET', META, 'partitions', number) end
end

if ARGV[FIRST] == '' then
  if events + letters == 0 then remove_mark() end
  return shown({0, events, letters})
end
at = began -- ages are those of the beginning

local function less(time, amount)
  return math.max(time - amount, 0)
end

local function error_before(text, amount)
  local time, rest = string.match(text, '^(%d+)( .*)$')
  return int(less(tonumber(time), amount)) .. rest
end

-- What was posted for a time of day is due then. All else keeps what is left of its time.
local function move_event(id, score, bytes)
  local state_bytes = redis.call('HGET', STATES, id)
  local record, state = read_record(bytes), read_state(state_bytes)
  local wall_skew = record and record.wall_skew and math.min(record.wall_skew, by)
  local moved = score - (not state_bytes and wall_skew or by)
  -- Not below 0, which no time is; nor later than it was, or it would be done twice.
  if moved > -math.huge and moved < math.huge then move(id, int(math.min(math.max(moved, 0), score))) end
  if state then
    state.due = less(state.due, wall_skew or by)
    if state.refusals then state.refusals.since = less(state.refusals.since, by) end
    if state.error then state.error = error_before(state.error, by) end
    write_state(id, state)
  end
  if wall_skew and wall_skew > 0 then redis.call('HSET', RECORDS, id, with_wall(bytes, ' w')) end
end

local function moved_letter(letter, buried)
  local record, _, _, head = read_letter(letter)
  if not head then return letter end -- dtimer did not write it
  local reason, counted, detail, number, due, failure, start =
    string.match(head, '^%d+ (%a+) (%d+) (%d+) (%d+) (%d+) (%d+)\n()')
  local said = string.sub(head, start, start + detail - 1)
  local error = failure == '0' and '' or error_before(string.sub(head, start + detail), by)
  return string.format('%s %s %d %d %d %d %d\n', buried, reason, counted, #said, number, less(due, by), #error)
    .. said .. error .. record
end

local function move_letter(member, score)
  local moved = score - by
  if not (moved >= 0 and moved < math.huge) then return 0 end
  local buried = int(moved)
  local id = string.match(member, '^(.*)\255%d+$')
  local new = id and earlier(id, buried) or member
  local letter = redis.call('HGET', LETTERS, member) or ''
  redis.call('HDEL', LETTERS, member)
  redis.call('ZREM', BURIED, member)
  redis.call('HSET', LETTERS, new, moved_letter(letter, buried))
  redis.call('ZADD', BURIED, buried, new)
  return #letter
end

-- How many entries of a sorted set to do, from one place on: a number of them, or of bytes of records.
local function some(key, first, work)
  local entries = redis.call('ZRANGE', key, first, first + LIMITS.BATCH_MAX_ITEMS - 1, 'WITHSCORES')
  local bytes, count = 0, 0
  while 2 * count < #entries and bytes < LIMITS.RESET_MAX_BYTES do
    bytes = bytes + work(entries[2 * count + 1], tonumber(entries[2 * count + 2]))
    count = count + 1
  end
  return count
end

local function save_and_return(done)
  local progress = string.format('%d %d %d %d', by, began, events, letters)
  if done == 0 then redis.call('HSET', META, 'reset', progress) end
  return shown({done, events, letters})
end

local count = some(QUEUE, events, function(id, score)
  local bytes = redis.call('HGET', RECORDS, id)
  move_event(id, score, bytes)
  return #(bytes or '')
end)
events = events + count
if count > 0 then return save_and_return(0) end

if letters == 0 then -- what is too old exists for no operation, and is not moved to before 1970
  local aged = redis.call('ZRANGEBYSCORE', BURIED, '-inf', int(oldest_that_exists()), 'LIMIT', 0, LIMITS.BATCH_MAX_ITEMS)
  for _, old in ipairs(aged) do forget_letter(old) end
  if #aged > 0 then return save_and_return(0) end
end
count = some(BURIED, letters, move_letter)
letters = letters + count
if count > 0 then return save_and_return(0) end

-- The clock last. Nodes that have been silent for too long join again with this epoch.
epoch, seq, last, skew, arm = ARGV[FIRST], seq + 1, less(last, by), 0, ''
at = last
save()
redis.call('HSET', META, 'epoch', epoch)
-- By commands that every user of a namespace may use; there are few.
for _, node in ipairs(redis.call('ZRANGE', RING, 0, -1)) do redis.call('ZREM', RING, node) end
for _, node in ipairs(redis.call('ZRANGE', LIVES, 0, -1)) do redis.call('ZREM', LIVES, node) end
local infos = redis.call('HGETALL', NODES)
for i = 1, #infos, 2 do redis.call('HDEL', NODES, infos[i]) end
remove_mark()
return save_and_return(1)
