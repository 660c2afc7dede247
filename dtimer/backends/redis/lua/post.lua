-- Schedule events (P1 to P5, T4 to T6).
-- ARGV     what to do with an event that exists (r, k or e), a letter for each event or one for all;
--          for each event: id, when it is due (see due_time), record
-- returns  a digit for each: 1 created, 2 replaced, 3 kept, 4 conflict
--@include ring
--@include records

local ids, count = {}, 0
for i = FIRST + 1, #ARGV, 3 do
  count = count + 1
  ids[count] = ARGV[i]
end
local scores = redis.call('ZMSCORE', QUEUE, unpack(ids))

local outcomes, queue, records, void, batch = {}, {}, {}, {}, {}
local place = 0
for i = 1, count do
  local id, record, score = ids[i], ARGV[FIRST + 3 * i], scores[i]
  local outcome = '1' -- as text, for a number would have to be made one
  if score or batch[id] then
    local letters = ARGV[FIRST]
    local letter = #letters == 1 and letters or string.sub(letters, i, i)
    outcome = letter == 'r' and '2' or letter == 'k' and '3' or '4'
  end
  outcomes[i] = outcome
  if outcome == '1' or outcome == '2' then
    -- One after the other: `a, b = x, y` sets b first, and an array that is not filled in order becomes a hash table,
    -- which made a batch half as dear again.
    local due = ARGV[FIRST + 3 * i - 1]
    queue[place + 1] = due_time(due)
    queue[place + 2] = id
    records[place + 1] = id
    records[place + 2] = skew == 0 and record or with_wall(record, wall_field(due))
    place = place + 2
    if score then void[#void + 1] = id end
    batch[id] = true
  end
end

-- The first of these writes fails on a full server, before anything is done.
for i = 1, place, 1000 do
  local stop = math.min(i + 999, place)
  redis.call('ZADD', QUEUE, unpack(queue, i, stop))
  redis.call('HSET', RECORDS, unpack(records, i, stop))
end
if #void > 0 then redis.call('HDEL', STATES, unpack(void)) end
return applied(table.concat(outcomes))
