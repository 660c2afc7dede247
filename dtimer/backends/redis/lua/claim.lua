-- Confirm what is finished, extend what is at work, then take what is due
-- (D1 to D6, D8, E1, E4, E5, P7, N1, W1, W4, W5, T3).
-- ARGV     node, incarnation, room, confirm timeout in us, nonce, pulse (1 or 0),
--          the longest the node goes without a claim in us, number of receipts, receipts,
--          a receipt and a timeout in us for each extension
-- returns  status (1 joined, 2 not joined, 3 fenced), outcomes of the receipts, a digit for each,
--          deliveries in one text, for a client takes longest over many small parts; for each:
--          'length of id, length of record, number, num_retries, due, at, deadline or 0\n' with spaces, id, record,
--          ended: id, record, reason, number, counted, kept (1 or 0); six for each,
--          unreadable: id, bytes; two for each, more (1 or 0), when to come or nothing,
--          and if there were extensions, their outcomes, a digit for each
--@include ring
--@include records
--@include receipts
--@include letters

local node, incarnation, room = ARGV[FIRST], ARGV[FIRST + 1], tonumber(ARGV[FIRST + 2])
local timeout, nonce = tonumber(ARGV[FIRST + 3]), ARGV[FIRST + 4]

write_though_full()
local count = tonumber(ARGV[FIRST + 7])
local confirmed = confirm_all(FIRST + 8, count)
local extensions = FIRST + 8 + 3 * count
local extended = ARGV[extensions] and extend_all(extensions) -- most claims have none
local status, where, again, parked = member_status(node, incarnation)
if status ~= 1 then return applied({status, confirmed, '', {}, {}, 0, false, extended}) end

-- It came: that shows that it lives and that the armed one perhaps does not.
sign_of_life(node, ARGV[FIRST + 6])
expire_nodes()
if arm ~= '' and arm ~= node and at > arm_at + LIMITS.ARM_GRACE_US then park(arm, 'suspect') end

local armed = arm == node
local horizon = at
if not armed and arm ~= '' then horizon = at - LIMITS.UNARMED_OVERDUE_US end
horizon = int(horizon)

local deliveries, ended, unreadable, more, bytes, cleared = {}, {}, {}, 0, 0, 0
local taken = 0
local new_places, new_states, gone = {}, {}, {}

local first_state = first_state_text(nonce, node)

-- state is nil at the first delivery: nearly always, and worth a way without a table for each.
local function deliver(id, bytes_of, record, state, due, score)
  local now, numbers, deadline = tick(), '1 0', '0'
  -- The score is due as text, of 16 digits mostly. To write a number as text costs one part in a hundred of a claim.
  local due_text = #score == 16 and score + 0 == due and due % 1 == 0 and score or int(due)
  if state then
    local number, num_retries = state.number + 1, state.counted
    numbers = int(number) .. ' ' .. int(num_retries)
    state.number, state.counted, state.nonce, state.node = number, num_retries + 1, nonce, node
  end
  if record.requires_confirm then
    deadline = int(now + (record.timeout or timeout))
    -- One after the other, as in post.lua.
    local place = #new_places
    new_places[place + 1] = deadline
    new_places[place + 2] = id
    new_states[place + 1] = id
    new_states[place + 2] = state and state_text(state) or first_state .. due_text
  else
    gone[#gone + 1] = id
  end
  local place = 3 * taken
  deliveries[place + 1] = string.format('%d %d %s %s %d %s\n', #id, #bytes_of, numbers, due_text, now, deadline)
  deliveries[place + 2] = id
  deliveries[place + 3] = bytes_of
  taken = taken + 1
end

-- One entry of the queue; false when a limit was reached (D5).
local function take(id, due, bytes_of, state_bytes, score)
  local record, size = read_record(bytes_of)
  local state = read_state(state_bytes)
  if not record or (state_bytes and not state) or #id > LIMITS.ID_MAX_BYTES then
    if cleared == LIMITS.CLAIM_EXTRA_ENTRIES then return false end
    cleared = cleared + 1
    unreadable[#unreadable + 1] = string.sub(id, 1, LIMITS.ID_MAX_BYTES)
    unreadable[#unreadable + 1] = string.sub(bytes_of or '', 1, LIMITS.UNREADABLE_SHOWN_BYTES)
    bury(id, bytes_of, 'unreadable', '', state, due)
    return true
  end
  local reason
  if state then missed(state, due) end
  if state and state.counted > record.retries then
    reason = 'exhausted'
  elseif record.expires_after and at > (state and state.due or due) + record.expires_after then
    reason = 'expired'
  end
  if reason and cleared == LIMITS.CLAIM_EXTRA_ENTRIES then return false end
  if not reason and taken == room then return false end
  if #deliveries + #ended > 0 and bytes + size > LIMITS.BATCH_MAX_BYTES then return false end
  bytes = bytes + size
  if not reason then
    deliver(id, bytes_of, record, state, due, score)
    return true
  end
  cleared = cleared + 1
  for _, value in ipairs({id, bytes_of, reason, state and state.number or 0, state and state.counted or 0,
    record.dead_letter and 1 or 0}) do
    ended[#ended + 1] = value
  end
  if record.dead_letter then bury(id, bytes_of, reason, '', state, due) else remove_event(id) end
  return true
end

local function take_all()
  local chunk
  repeat
    -- One more than there is room for tells whether there is more. That few are read at a time bounds what is read in
    -- vain when the bytes run out. What was taken stands in the queue still; all else is gone from it.
    chunk = math.min(room - taken + 1, 64)
    local due = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', horizon, 'WITHSCORES', 'LIMIT', taken, chunk)
    if #due == 0 then return 0 end
    local ids = {}
    for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
    local records = redis.call('HMGET', RECORDS, unpack(ids))
    local states = redis.call('HMGET', STATES, unpack(ids))
    for i, id in ipairs(ids) do
      if not take(id, time_of(due[2 * i]), records[i], states[i], due[2 * i]) then return 1 end
    end
  until #due < 2 * chunk
  return 0
end
more = take_all()

-- The writes for all deliveries at once.
for i = 1, #new_places, 1000 do
  redis.call('ZADD', QUEUE, unpack(new_places, i, math.min(i + 999, #new_places)))
  redis.call('HSET', STATES, unpack(new_states, i, math.min(i + 999, #new_states)))
end
if #gone > 0 then
  redis.call('ZREM', QUEUE, unpack(gone))
  redis.call('HDEL', RECORDS, unpack(gone))
  redis.call('HDEL', STATES, unpack(gone))
end

-- Who took something goes to the ring's end; that it came ends its parking, unless no room is left (D8, W4).
local parks = taken >= room and 'full' or '-'
if taken > 0 then
  position = position + 1
  where = position
  if armed then arm = '' end
end
if taken > 0 or parks ~= parked then place(node, incarnation, where, again, parks) end
if ARGV[FIRST + 5] == '1' then
  redis.pcall('PUBLISH', ARGV[2] .. epoch .. ':p', '1 ' .. node .. ' ' .. int(at) .. ' ' .. int(seq))
end
local value = {status, confirmed, table.concat(deliveries), ended, unreadable, more}
local reply = applied(value, node)
value[7] = arm == node and arm_due or false -- only now is it known
value[8] = extended
return reply
