-- End events in any live state (E2).
-- ARGV     ids
-- returns  a digit for each: 1 cancelled, 2 stopped, 3 not found
--@include ring
--@include records

write_though_full()
local outcomes = {}
for i = FIRST, #ARGV do
  local id = ARGV[i]
  local outcome = 3
  if redis.call('ZSCORE', QUEUE, id) then
    local state = read_state(redis.call('HGET', STATES, id))
    outcome = state and state.nonce and 2 or 1
    remove_event(id)
  end
  outcomes[#outcomes + 1] = outcome
end
return applied(table.concat(outcomes))
