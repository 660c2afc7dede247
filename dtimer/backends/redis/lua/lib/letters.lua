-- Dead letters (E5); the twin of semantics/dead_letters.py.
-- LETTERS member -> 'buried reason counted length number due length\n' detail error record: the lengths are those of the
--         detail and the error, which is as in STATES, or nothing
-- BURIED  member by the time of its burial in us, which no other letter has
-- A letter's member is its id if that was not buried again, else 'id \255 buried', without the blanks: ids are UTF-8.

local function forget_letter(member)
  redis.call('HDEL', LETTERS, member)
  redis.call('ZREM', BURIED, member)
end

local function oldest_that_exists()
  return at - LIMITS.DEAD_LETTER_AGE_US
end

local function buried_at(member)
  return time_of(redis.call('ZSCORE', BURIED, member))
end

local function earlier(id, buried)
  return id .. '\255' .. buried
end

-- The member of a letter that exists, or nothing. Without a time the letter of the id's last burial is meant.
local function find_letter(id, buried)
  local member, found = id, buried_at(id)
  if buried ~= '' and found ~= tonumber(buried) then
    member = earlier(id, buried)
    found = buried_at(member)
  end
  return found and found > oldest_that_exists() and member
end

local REASONS = {exhausted = true, expired = true, refused = true, buried = true, unreadable = true}

-- A letter's record, what it says, its size without what dtimer put before it, and that.
local function read_letter(letter)
  local _, stop, buried, reason, counted, detail, number, due, failure =
    string.find(letter, '^(%d+) (%a+) (%d+) (%d+) (%d+) (%d+) (%d+)\n')
  if not (REASONS[reason or ''] and #buried <= 16 and #counted <= 15 and #number <= 15 and #due <= 16
    and tonumber(detail) <= LIMITS.UNREADABLE_SHOWN_BYTES and tonumber(failure) <= LIMITS.LAST_ERROR_MAX_BYTES) then
    return nil, nil, #letter
  end
  local first = stop + detail + 1
  local last = first + failure - 1
  if failure ~= '0' and not read_error(string.sub(letter, first, last)) then return nil, nil, #letter end
  local record = string.sub(letter, last + 1)
  local read, size = read_record(record)
  return record, read, size or #record, string.sub(letter, 1, last)
end

-- The event must still be there: its record is moved, byte for byte. due is needed if it has no state.
local function bury(id, record, reason, detail, state, due)
  local aged = redis.call('ZRANGEBYSCORE', BURIED, '-inf', oldest_that_exists(), 'LIMIT', 0,
    LIMITS.CLAIM_EXTRA_ENTRIES)
  for _, old in ipairs(aged) do forget_letter(old) end
  local before = buried_at(id)
  if before then
    local member = earlier(id, int(before))
    redis.call('HSET', LETTERS, member, redis.call('HGET', LETTERS, id) or '')
    redis.call('ZADD', BURIED, int(before), member)
  end
  remove_event(id)
  local buried = int(tick())
  local failure = state and state.error or ''
  local header = string.format('%s %s %d %d %d %d %d\n', buried, reason, state and state.counted or 0, #detail,
    state and state.number or 0, state and state.due or due, #failure)
  redis.call('HSET', LETTERS, id, header .. detail .. failure .. (record or ''))
  redis.call('ZADD', BURIED, buried, id)
  if redis.call('ZCARD', BURIED) > LIMITS.DEAD_LETTERS_MAX then
    local oldest, score = unpack(redis.call('ZRANGE', BURIED, 0, 0, 'WITHSCORES'))
    if tonumber(score) > oldest_that_exists() then dropped = dropped + 1 end
    forget_letter(oldest)
  end
end
