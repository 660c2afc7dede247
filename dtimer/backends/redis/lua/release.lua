-- Give a delivery back (E4, F4).
-- ARGV     id, number, nonce, how (counted, uncounted or refused), delay (see due_time), detail
-- returns  1 released, 2 stale, 3 not found, 4 exhausted, 5 buried
--@include ring
--@include records
--@include receipts
--@include letters

write_though_full()
local id, how = ARGV[FIRST], ARGV[FIRST + 3]
local state = read_state(redis.call('HGET', STATES, id))
if not holds(state, ARGV[FIRST + 1], ARGV[FIRST + 2]) then return applied(stale_or_not_found(id)) end
local bytes = redis.call('HGET', RECORDS, id)
local record = read_record(bytes) or {retries = 0}
if how == 'counted' then
  if state.counted > record.retries then
    if record.keep then bury(id, bytes, 'exhausted', '', state.counted) else remove_event(id) end
    return applied(4)
  end
else
  state.counted = state.counted - 1
end
if how == 'refused' then
  state.refusals = state.refusals + 1
  if state.refusals >= LIMITS.REFUSALS_MAX then
    bury(id, bytes, 'refused', ARGV[FIRST + 5], state.counted)
    return applied(5)
  end
end
state.nonce = nil
write_state(id, state)
move(id, due_time(ARGV[FIRST + 4]))
return applied(1)
