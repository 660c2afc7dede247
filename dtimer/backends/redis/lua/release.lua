-- Give a delivery back (E4, E5, F4).
-- ARGV     id, number, nonce, how (counted, uncounted, failed or refused), delay (see due_time; of the last two none
--          counts), how long after its first refusal the event is buried, in us, then nothing, or what went wrong:
--          its type, its text
-- returns  1 released, 2 stale, 3 not found, 4 exhausted, 5 buried
--@include ring
--@include records
--@include receipts
--@include letters
--@include refusals

write_though_full()
local id, how, delay = ARGV[FIRST], ARGV[FIRST + 3], ARGV[FIRST + 4]
local state = read_state(redis.call('HGET', STATES, id))
if not holds(state, ARGV[FIRST + 1], ARGV[FIRST + 2]) then return applied(stale_or_not_found(id)) end
local bytes = redis.call('HGET', RECORDS, id)
local record = read_record(bytes) or {retries = 0}
if ARGV[FIRST + 6] then failed(state, at, ARGV[FIRST + 6], ARGV[FIRST + 7]) end
if how == 'failed' then
  write_state(id, state)
  return applied(1)
end
if how == 'counted' then
  if state.counted > record.retries then
    if record.dead_letter then bury(id, bytes, 'exhausted', '', state) else remove_event(id) end
    return applied(4)
  end
  state.refusals = nil
else
  state.counted = state.counted - 1
end
if how == 'refused' then
  state.refusals = one_more(state.refusals)
  if at - state.refusals.since >= tonumber(ARGV[FIRST + 5]) then
    bury(id, bytes, 'refused', '', state)
    return applied(5)
  end
  delay = wait_after(state.refusals.number)
end
state.nonce = nil
write_state(id, state)
move(id, due_time(delay))
return applied(1)
