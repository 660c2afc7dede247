-- Schedule events (P1 to P5, T4 to T6, F1).
-- ARGV     for each event: id, what to do if it exists (r, k or e) and, in the same argument, when it is due
--          ('+' delay or '=' time, in us), record
-- returns  a digit for each: 1 created, 2 replaced, 3 kept, 4 conflict, 5 repeated
--@include ring
--@include records

local ids, place = {}, 0
for i = FIRST, #ARGV, 3 do
  place = place + 1
  ids[place] = ARGV[i]
end
local scores = redis.call('ZMSCORE', QUEUE, unpack(ids))

local outcomes, queue, records, void, batch = {}, {}, {}, {}, {}
place = 0
for i, id in ipairs(ids) do
  local how, record = ARGV[FIRST + 3 * i - 2], ARGV[FIRST + 3 * i - 1]
  local outcome = 1
  if batch[id] or scores[i] then
    local nonce = nonce_of(record)
    if nonce and nonce == nonce_of(batch[id] or redis.call('HGET', RECORDS, id)) then
      outcome = 5
    else
      local if_exists = string.sub(how, 1, 1)
      outcome = if_exists == 'r' and 2 or if_exists == 'k' and 3 or 4
    end
  end
  outcomes[i] = outcome
  if outcome <= 2 then
    queue[place + 1], queue[place + 2] = due_time(string.sub(how, 2)), id
    records[place + 1], records[place + 2] = id, record
    place = place + 2
    if scores[i] then void[#void + 1] = id end
    batch[id] = record
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
