-- Records and states of events.
-- RECORDS id -> '1 field field ...\n' headers payload. A field is a letter and its value: r max_retries, c confirm
--         timeout in us, x expires after in us, k kept, p retry policy, n nonce, h length of the headers.
--         Fields not known here are kept as they are (F7); the payload is never looked at (P4).
-- STATES  id -> 'number counted refusals nonce expires', for live events that have been delivered;
--         nonce is - unless a delivery is unconfirmed, expires is - or a time in us.

-- Refuses whatever records.py could not read: what is handed out must reach its node, and its neighbours with it.
-- A table of what the rules need, size being that of headers and payload; or nil if dtimer did not write this (F4).
local function read_record(record)
  if not record then return nil end
  local stop = string.find(record, '\n', 1, true)
  if not stop or stop > 512 then return nil end
  local header = string.sub(record, 1, stop - 1)
  if header == '1' then return {retries = 0, size = #record - stop} end
  if string.sub(header, 1, 2) ~= '1 ' or string.find(header, '[^\32-\126]') then return nil end
  local found = {retries = 0, size = #record - stop}
  for letter, value in string.gmatch(header, ' (%a)(%S*)') do
    if string.find('rcxh', letter, 1, true) then
      if #value > 16 or not string.find(value, '^%d+$') then return nil end
      local number = tonumber(value)
      if letter == 'r' then found.retries = number end
      if letter == 'c' then found.timeout = number end
      if letter == 'x' then found.expires_after = number end
      if letter == 'h' and number > #record - stop then return nil end
    elseif letter == 'p' then
      local factor = string.match(value, '^%d+,([%d.e+-]+),%d+$')
      if not (factor and tonumber(factor)) then return nil end
    elseif letter == 'k' then
      found.keep = true
    elseif letter == 'n' then
      found.nonce = value
    end
  end
  found.tracked = found.retries > 0 or found.keep
  return found
end

-- nil if there is none or if dtimer did not write it.
local function read_state(state)
  if not state then return nil end
  local number, counted, refusals, nonce, expires = string.match(state, '^(%d+) (%d+) (%d+) (%S+) (%S+)$')
  if not number then return nil end
  return {
    number = tonumber(number), counted = tonumber(counted), refusals = tonumber(refusals),
    nonce = nonce ~= '-' and nonce or nil, expires = tonumber(expires),
  }
end

local function write_state(id, state)
  redis.call('HSET', STATES, id, int(state.number) .. ' ' .. int(state.counted) .. ' ' .. int(state.refusals) .. ' '
    .. (state.nonce or '-') .. ' ' .. (state.expires and int(state.expires) or '-'))
end

local function move(id, time)
  redis.call('ZADD', QUEUE, int(time), id)
end

local function remove_event(id)
  redis.call('ZREM', QUEUE, id)
  redis.call('HDEL', RECORDS, id)
  redis.call('HDEL', STATES, id)
end
