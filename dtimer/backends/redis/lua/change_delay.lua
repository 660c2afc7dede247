-- Move a scheduled event to now + delay (E3).
-- ARGV     id, delay (see due_time)
-- returns  1 moved, 2 unconfirmed, 3 not found
--@include ring
--@include records

write_though_full()
local id = ARGV[FIRST]
if not redis.call('ZSCORE', QUEUE, id) then return applied(3) end
local state = read_state(redis.call('HGET', STATES, id))
if state and state.nonce then return applied(2) end
local due = due_time(ARGV[FIRST + 1])
move(id, due)
local record = redis.call('HGET', RECORDS, id)
local read = read_record(record)
if read and read.wall_skew then redis.call('HSET', RECORDS, id, with_wall(record, '')) end
if state then
  state.due = tonumber(due)
  write_state(id, state)
end
return applied(1)
