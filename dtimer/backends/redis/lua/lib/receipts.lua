-- Receipts: three arguments each, id, number and nonce (E1). Each counts once at most (F1).

local function holds(state, number, nonce)
  return state and state.nonce == nonce and state.number == tonumber(number)
end

-- The same for a state as it is kept, without a table for each.
local first_of = {}
local function held(text, number, nonce)
  -- A first delivery, as nearly all are, needs no look at the parts. What is compared is made once for each claim.
  if number == '1' and nonce ~= '-' then
    local first = first_of[nonce]
    if not first then
      first = '1 1 0 ' .. nonce .. ' '
      first_of[nonce] = first
    end
    if string.find(text, first, 1, true) == 1 then return true end
  end
  local its_number, its_nonce = string.match(text, '^(%d+) %d+ %S+ (%S+) %S+ +%d+')
  return its_nonce == nonce and nonce ~= '-' and tonumber(its_number) == tonumber(number)
end

-- A receipt that names no delivery: 2 the event lives, 3 it does not.
local function stale_or_not_found(id)
  return redis.call('ZSCORE', QUEUE, id) and 2 or 3
end

-- Moves deadlines, each to now + a timeout in us, which follows the receipt; as many as there are arguments (E4).
-- A digit for each: 1 extended, 2 stale, 3 not found.
local function extend_all(first)
  local outcomes, ids, places = {}, {}, {}
  for argument = first, #ARGV, 4 do ids[#ids + 1] = ARGV[argument] end
  local states = redis.call('HMGET', STATES, unpack(ids))
  for i, id in ipairs(ids) do
    local argument = first + 4 * (i - 1)
    if states[i] and held(states[i], ARGV[argument + 1], ARGV[argument + 2]) then
      outcomes[i] = 1
      places[#places + 1] = int(tick() + tonumber(ARGV[argument + 3]))
      places[#places + 1] = id
    else
      outcomes[i] = stale_or_not_found(id)
    end
  end
  if #places > 0 then redis.call('ZADD', QUEUE, unpack(places)) end
  return table.concat(outcomes)
end

-- Ends the events whose newest receipts these are; a digit for each: 1 confirmed, 2 stale, 3 not found.
local function confirm_all(first, count)
  local outcomes, ids, ended, gone = {}, {}, {}, {}
  if count == 0 then return '' end
  for i = 1, count do ids[i] = ARGV[first + 3 * (i - 1)] end
  local states = redis.call('HMGET', STATES, unpack(ids))
  for i, id in ipairs(ids) do
    local argument = first + 3 * (i - 1)
    if gone[id] then
      outcomes[i] = 3
    elseif states[i] and held(states[i], ARGV[argument + 1], ARGV[argument + 2]) then
      outcomes[i] = 1
      gone[id] = true
      ended[#ended + 1] = id
    else
      outcomes[i] = stale_or_not_found(id)
    end
  end
  if #ended > 0 then
    redis.call('ZREM', QUEUE, unpack(ended))
    redis.call('HDEL', RECORDS, unpack(ended))
    redis.call('HDEL', STATES, unpack(ended))
  end
  return table.concat(outcomes)
end
