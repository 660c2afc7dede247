-- End an unconfirmed event whoever holds its receipt (E1).
-- ARGV     id
-- returns  1 confirmed, 3 not found
--@include ring
--@include records

write_though_full()
local id = ARGV[FIRST]
local state = read_state(redis.call('HGET', STATES, id))
if not (state and state.nonce and redis.call('ZSCORE', QUEUE, id)) then return applied(3) end
remove_event(id)
return applied(1)
