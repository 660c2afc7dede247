-- Records and states of events.
-- RECORDS id -> '1 field field ...\n' headers payload. A field is a letter and its value: r max_retries, c confirm
--         timeout in us, x expires after in us, k kept, p retry policy, h length of the headers.
--         Fields not known here are kept as they are (F7); the payload is never looked at (P4).
-- STATES  id -> 'number counted refusals nonce expires', for live events that have been delivered;
--         refusals is 0 or 'number,since,joins' (see refusals.lua), nonce is - unless a delivery is unconfirmed, expires
--         is - or a time in us, filled up with spaces: a hash whose values have at most 64 bytes is kept as a list,
--         of up to 512, and then each look reads through all events in hand.

-- What the fields of a header line say, or false. Most events of a batch have the same, so a line is read once a script.
local lines = {}

local function read_line(line)
  if line == '1' then return {retries = 0, header_bytes = 0} end
  if string.sub(line, 1, 2) ~= '1 ' or string.find(line, '[^\32-\126]') then return false end
  local found = {retries = 0, header_bytes = 0}
  for letter, value in string.gmatch(line, ' (%a)(%S*)') do
    if string.find('rcxh', letter, 1, true) then
      if #value > 16 or not string.find(value, '^%d+$') then return false end
      local number = tonumber(value)
      if letter == 'r' and number > LIMITS.RETRIES_MAX then return false end
      if letter == 'r' then found.retries = number end
      if letter == 'c' then found.timeout = number end
      if letter == 'x' then found.expires_after = number end
      if letter == 'h' then found.header_bytes = number end
    elseif letter == 'p' then
      local delay, factor, longest = string.match(value, '^(%d+),([%d.e+-]+),(%d+)$')
      factor = tonumber(factor or nil)
      if not factor or factor < 1 or factor == math.huge or #delay > 16 or #longest > 16 then return false end
    elseif letter == 'k' then
      found.keep = true
    end
  end
  found.tracked = found.retries > 0 or found.keep
  return found
end

-- Refuses whatever records.py could not read: what is handed out must reach its node, and its neighbours with it.
-- A table of what the rules need, and the size of headers and payload; or nothing if dtimer did not write this (F4).
local function read_record(record)
  if not record then return nil end
  local stop = string.find(record, '\n', 1, true)
  if not stop or stop > 512 then return nil end
  local header = string.sub(record, 1, stop - 1)
  local found = lines[header]
  if found == nil then
    found = read_line(header)
    lines[header] = found
  end
  local size = #record - stop
  if not found or found.header_bytes > size then return nil end
  if size > LIMITS.EVENT_MAX_BYTES + LIMITS.HEADERS_MAX_BYTES then return nil end -- no reply could hold it
  return found, size
end

-- nil if there is none or if dtimer did not write it.
local function read_state(state)
  if not state then return nil end
  local number, counted, refusals, nonce, expires = string.match(state, '^(%d+) (%d+) ([%d,]+) (%S+) ([%d-]+) *$')
  if not number or #number > 15 or #counted > 15 or #expires > 16 then return nil end
  local found = {
    number = tonumber(number), counted = tonumber(counted),
    nonce = nonce ~= '-' and nonce or nil, expires = tonumber(expires),
  }
  if refusals ~= '0' then
    local times, since, joins = string.match(refusals, '^(%d+),(%d+),(%d+)$')
    if not times or #times > 15 or #since > 16 or #joins > 15 then return nil end
    found.refusals = {number = tonumber(times), since = tonumber(since), joins = tonumber(joins)}
  end
  return found
end

local function state_text(state)
  local refusals = state.refusals
  return string.format('%d %d %s %s %-60s', state.number, state.counted,
    refusals and string.format('%d,%d,%d', refusals.number, refusals.since, refusals.joins) or '0',
    state.nonce or '-', state.expires and int(state.expires) or '-')
end

-- That of a first delivery of what cannot expire.
local function first_state_text(nonce)
  return string.format('1 1 0 %s %-60s', nonce, '-')
end

local function write_state(id, state)
  redis.call('HSET', STATES, id, state_text(state))
end

local function move(id, time)
  redis.call('ZADD', QUEUE, time, id)
end

local function remove_event(id)
  redis.call('ZREM', QUEUE, id)
  redis.call('HDEL', RECORDS, id)
  redis.call('HDEL', STATES, id)
end
