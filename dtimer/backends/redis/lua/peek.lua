-- A live event as it stands (R1). A read.
-- ARGV     id
-- returns  nothing, or record, next time, number, counted, unconfirmed (1 or 0)
--@include namespace
--@include records

local id = ARGV[FIRST]
local next_time = redis.call('ZSCORE', QUEUE, id)
local bytes = redis.call('HGET', RECORDS, id)
if not (next_time and read_record(bytes)) then return shown(false) end
local state = read_state(redis.call('HGET', STATES, id)) or {number = 0, counted = 0}
return shown({bytes, time_of(next_time), state.number, state.counted, state.nonce and 1 or 0})
