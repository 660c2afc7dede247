-- One page of live events in claim order (R2). A read.
-- ARGV     limit, then for a window: 'w', offset in us or empty, duration in us or empty
--          or for what follows a page: 'c', its last time, its last id, the window's end or empty
-- returns  for each event: id, record, next time, number, counted, unconfirmed (1 or 0); six for each,
--          then nothing, or where the page ended: time, id, the window's end or nothing
--@include namespace
--@include records
--@include pages

local limit, kind = tonumber(ARGV[FIRST]), ARGV[FIRST + 1]
-- What is later than any time is not listed: no cursor could go past it.
local first, stop, until_time = 0, redis.call('ZCOUNT', QUEUE, '-inf', int(TIME_MAX)), nil
if kind == 'c' then
  first = rank_after(QUEUE, ARGV[FIRST + 2], ARGV[FIRST + 3])
  until_time = tonumber(ARGV[FIRST + 4])
else
  local from, duration = tonumber(ARGV[FIRST + 2]), tonumber(ARGV[FIRST + 3])
  if duration then until_time = at + (from or 0) + duration end
  if from then first = redis.call('ZCOUNT', QUEUE, '-inf', '(' .. int(at + from)) end
end
if until_time then stop = redis.call('ZCOUNT', QUEUE, '-inf', int(until_time)) end

local page, bytes, rank, last_time, last_id, full = {}, 0, first, nil, nil, false

local function add(id, next_time, record, state)
  local read, size = read_record(record)
  if read and #id <= LIMITS.ID_MAX_BYTES then
    if #page > 0 and bytes + size > LIMITS.BATCH_MAX_BYTES then return false end
    bytes = bytes + size
    state = read_state(state) or {number = 0, counted = 0}
    for _, value in ipairs({id, record, next_time, state.number, state.counted, state.nonce and 1 or 0}) do
      page[#page + 1] = value
    end
  end
  rank, last_time, last_id = rank + 1, next_time, id
  return true
end

local chunk = 32
while not full and rank < math.min(stop, first + limit) do
  local entries = redis.call('ZRANGE', QUEUE, rank, math.min(stop, first + limit, rank + chunk) - 1, 'WITHSCORES')
  local ids = {}
  for i = 1, #entries, 2 do ids[#ids + 1] = entries[i] end
  local records = redis.call('HMGET', RECORDS, unpack(ids))
  local states = redis.call('HMGET', STATES, unpack(ids))
  for i, id in ipairs(ids) do
    if not add(id, time_of(entries[2 * i]), records[i], states[i]) then
      full = true
      break
    end
  end
end
if rank == first or rank >= stop then return shown({page, false}) end
return shown({page, {last_time, last_id, until_time or false}})
