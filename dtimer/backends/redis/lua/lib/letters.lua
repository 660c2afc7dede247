-- Dead letters (E5); the twin of semantics/letters.py.
-- LETTERS id -> 'buried reason counted length\n' detail record, length being that of the detail
-- BURIED  id by the time of its burial in us

local function forget_letter(id)
  redis.call('HDEL', LETTERS, id)
  redis.call('ZREM', BURIED, id)
end

local function oldest_that_exists()
  return at - LIMITS.DEAD_LETTER_AGE_US
end

local function letter_exists(id)
  local buried = tonumber(redis.call('ZSCORE', BURIED, id) or nil)
  return buried and buried > oldest_that_exists()
end

local REASONS = {exhausted = true, expired = true, refused = true, buried = true, unreadable = true}

-- A letter's record, what it says, and its size without what dtimer put before it.
local function read_letter(letter)
  local _, stop, buried, reason, counted, length = string.find(letter, '^(%d+) (%a+) (%d+) (%d+)\n')
  if not (REASONS[reason or ''] and #buried <= 16 and #counted <= 16
    and tonumber(length) <= LIMITS.UNREADABLE_SHOWN_BYTES) then return nil, nil, #letter end
  local record = string.sub(letter, stop + length + 1)
  local read, size = read_record(record)
  return record, read, size or #record
end

-- The event must still be there: its record is moved, byte for byte.
local function bury(id, record, reason, detail, counted)
  local aged = redis.call('ZRANGEBYSCORE', BURIED, '-inf', oldest_that_exists(), 'LIMIT', 0,
    LIMITS.CLAIM_EXTRA_ENTRIES)
  for _, old in ipairs(aged) do forget_letter(old) end
  if letter_exists(id) then dropped = dropped + 1 end
  remove_event(id)
  redis.call('HSET', LETTERS, id, int(at) .. ' ' .. reason .. ' ' .. int(counted) .. ' ' .. #detail .. '\n' .. detail
    .. (record or ''))
  redis.call('ZADD', BURIED, at, id)
  if redis.call('ZCARD', BURIED) > LIMITS.DEAD_LETTERS_MAX then
    local oldest = redis.call('ZRANGE', BURIED, 0, 0)[1]
    if letter_exists(oldest) then dropped = dropped + 1 end
    forget_letter(oldest)
  end
end
