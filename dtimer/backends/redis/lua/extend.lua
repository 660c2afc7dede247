-- Move the deadline of a delivery to now + timeout (E4).
-- ARGV     id, number, nonce, timeout in us
-- returns  1 extended, 2 stale, 3 not found
--@include ring
--@include records
--@include receipts

write_though_full()
local id = ARGV[FIRST]
if not holds(read_state(redis.call('HGET', STATES, id)), ARGV[FIRST + 1], ARGV[FIRST + 2]) then
  return applied(stale_or_not_found(id))
end
move(id, tick() + tonumber(ARGV[FIRST + 3]))
return applied(1)
