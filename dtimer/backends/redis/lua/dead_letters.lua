-- One page of dead letters, oldest first (E5). A read.
-- ARGV     limit, then nothing, or where the page before ended: time, id
-- returns  for each: id, letter; two for each, then nothing, or where the page ended: time, id
--@include namespace
--@include records
--@include letters
--@include pages

local limit = tonumber(ARGV[FIRST])
local first = redis.call('ZCOUNT', BURIED, '-inf', int(oldest_that_exists()))
local after, last = ARGV[FIRST + 1], ARGV[FIRST + 2]
if after then
  if buried_at(last) ~= tonumber(after) then last = earlier(last, after) end -- it was buried again
  first = math.max(first, rank_after(BURIED, after, last))
end
local page, bytes, seen, ended = {}, 0, 0, false
local entries = redis.call('ZRANGE', BURIED, first, first + limit - 1, 'WITHSCORES')
for i = 1, #entries, 2 do
  local letter = redis.call('HGET', LETTERS, entries[i]) or ''
  local record, readable, size, head = read_letter(letter)
  if not readable then
    -- Its beginning: it may have any size.
    if not (head and string.find(letter, '^%d+ unreadable ')) then
      local buried = int(time_of(entries[i + 1]))
      head, record = buried .. ' unreadable 0 0 0 ' .. buried .. ' 0\n', letter
    end
    record = string.sub(record, 1, LIMITS.UNREADABLE_SHOWN_BYTES)
    letter = head .. record
    size = #record
  end
  local id = string.match(entries[i], '^(.*)\255%d+$') or entries[i]
  if #page > 0 and bytes + size > LIMITS.BATCH_MAX_BYTES then break end
  bytes = bytes + size
  if #id <= LIMITS.ID_MAX_BYTES then
    page[#page + 1] = id
    page[#page + 1] = letter
  end
  seen = seen + 1
  ended = {time_of(entries[i + 1]), id}
end
if first + seen >= redis.call('ZCOUNT', BURIED, '-inf', int(TIME_MAX)) then ended = false end
return shown({page, ended})
