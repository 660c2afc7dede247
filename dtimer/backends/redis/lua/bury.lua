-- Make a dead letter of an unconfirmed event (F4).
-- ARGV     id, number, nonce, detail
-- returns  1 buried, 2 stale, 3 not found
--@include ring
--@include records
--@include receipts
--@include letters

write_though_full()
local id = ARGV[FIRST]
local state = read_state(redis.call('HGET', STATES, id))
if not holds(state, ARGV[FIRST + 1], ARGV[FIRST + 2]) then return applied(stale_or_not_found(id)) end
bury(id, redis.call('HGET', RECORDS, id), 'buried', ARGV[FIRST + 3], state)
return applied(1)
