-- Records and states of events.
-- RECORDS id -> '1 field field ...\n' headers payload. A field is a letter and its value: those of EVENT_FIELDS in
--         values.py, h length of the headers, w posted for a time of day, by the skew that is given in us, or none (T6):
--         the queue has that time plus the skew. A change of delay takes it away.
--         Fields not known here are kept as they are (F7); the payload is never looked at (P4).
-- STATES  id -> 'number counted refusals nonce node due', for live events that have been delivered;
--         refusals is 0 or 'number,since,joins' (see refusals.lua), nonce is - unless a delivery is unconfirmed,
--         node has the newest delivery, due is when it was due by its post or the last change of delay.
--         The node is filled up with spaces: a hash whose values have at most 64 bytes is kept as a list, of up to 512,
--         and then each look reads through all events in hand.
--         After a newline follows what went wrong last, if anything did (E5): 'at delivery node length\n' type text,
--         length being that of the type, or -1 if a delivery was not confirmed in time.

-- What the fields of a header line say, or false. Most events of a batch have the same, so a line is read once a script,
-- and is not looked for in a record that begins as the one before.
local lines = {}
local line_before, stop_before = '', 0

local function read_line(line)
  if line == '1' then return {retries = 0, header_bytes = 0} end
  if string.sub(line, 1, 2) ~= '1 ' or string.find(line, '[^\32-\126]') then return false end
  local found = {retries = 0, header_bytes = 0}
  for letter, value in string.gmatch(line, ' (%a)(%S*)') do
    if string.find(FIELDS.WHOLE, letter, 1, true) then
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
      found.dead_letter = true
    elseif letter == 'w' then
      if #value > 16 or not string.find(value, '^%d*$') then return false end
      found.wall_skew = tonumber(value) or 0
    end
  end
  found.requires_confirm = found.retries > 0 or found.dead_letter
  return found
end

-- Refuses whatever values.py could not read: what is handed out must reach its node, and its neighbours with it.
-- A table of what the rules need, and the size of headers and payload; or nothing if dtimer did not write this (F4).
local function read_record(record)
  if not record then return nil end
  local stop, line = stop_before, string.sub(record, 1, stop_before)
  if line ~= line_before or stop == 0 then
    stop = string.find(record, '\n', 1, true)
    if not stop or stop > 512 then return nil end
    line = string.sub(record, 1, stop)
    line_before, stop_before = line, stop
  end
  local found = lines[line]
  if found == nil then
    found = read_line(string.sub(line, 1, stop - 1))
    lines[line] = found
  end
  local size = #record - stop
  if not found or found.header_bytes > size then return nil end
  if size > LIMITS.EVENT_MAX_BYTES + LIMITS.HEADERS_MAX_BYTES then return nil end -- no reply could hold it
  return found, size
end

-- A record that can be read, with this in place of what it says of a time of day: see wall_field.
local function with_wall(record, field)
  local stop = string.find(record, '\n', 1, true)
  return string.gsub(string.sub(record, 1, stop - 1), ' w%d*', '') .. field .. string.sub(record, stop)
end

-- What went wrong last, as it is kept: in which delivery; nil if dtimer did not write it.
local function read_error(text)
  local time, delivery, node, length = string.match(text, '^(%d+) (%d+) ([%w_.-]+) (%-?%d+)\n')
  local whole = time and #time <= 16 and #delivery <= 15 and #node <= 64 and #length <= 5 and #text <= LIMITS.LAST_ERROR_MAX_BYTES
  return whole and tonumber(delivery) or nil
end

-- nil if there is none or if dtimer did not write it.
local function read_state(state)
  if not state then return nil end
  local number, counted, refusals, nonce, node, due, stop = string.match(state,
    '^(%d+) (%d+) ([%d,]+) (%S+) ([%w_.-]+) +(%d+)()')
  if not number or #number > 15 or #counted > 15 or #due > 16 or #node > 64 then return nil end
  local found = {
    number = tonumber(number), counted = tonumber(counted), nonce = nonce ~= '-' and nonce or nil,
    node = node, due = tonumber(due),
  }
  if refusals ~= '0' then
    local times, since, joins = string.match(refusals, '^(%d+),(%d+),(%d+)$')
    if not times or #times > 15 or #since > 16 or #joins > 15 then return nil end
    found.refusals = {number = tonumber(times), since = tonumber(since), joins = tonumber(joins)}
  end
  if stop <= #state then
    found.error = string.sub(state, stop + 1)
    found.failed = read_error(found.error)
    if string.byte(state, stop) ~= 10 or not found.failed then return nil end
  end
  return found
end

-- What is the same for all first deliveries of a claim.
local function first_state_text(nonce, node)
  return string.format('1 1 0 %s %-40s ', nonce, node)
end

local function state_text(state)
  local refusals = state.refusals
  local text = string.format('%d %d %s %s %-40s %d', state.number, state.counted,
    refusals and string.format('%d,%d,%d', refusals.number, refusals.since, refusals.joins) or '0',
    state.nonce or '-', state.node, state.due)
  return state.error and text .. '\n' .. state.error or text
end

-- What is known of the newest delivery (E5); without a type it was not confirmed in time.
local function failed(state, time, type, text)
  state.failed = state.number
  state.error = string.format('%d %d %s %d\n', time, state.number, state.node, type and #type or -1)
    .. (type or '') .. (text or '')
end

-- Its deadline has passed, and it is claimed: if nothing was told of the delivery, that is its error.
local function missed(state, deadline)
  if state.nonce and (state.failed or 0) < state.number then failed(state, deadline) end
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
