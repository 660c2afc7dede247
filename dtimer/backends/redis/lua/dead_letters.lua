-- One page of dead letters, oldest first (E5). A read.
-- ARGV     limit, then nothing, or where the page before ended: time, id
-- returns  for each: id, letter; two for each, then nothing, or where the page ended: time, id
--@include namespace
--@include records
--@include letters
--@include pages

local limit = tonumber(ARGV[FIRST])
local first = redis.call('ZCOUNT', BURIED, '-inf', int(oldest_that_exists()))
if ARGV[FIRST + 1] then first = math.max(first, rank_after(BURIED, ARGV[FIRST + 1], ARGV[FIRST + 2])) end
local page, bytes, seen, ended = {}, 0, 0, false
local entries = redis.call('ZRANGE', BURIED, first, first + limit - 1, 'WITHSCORES')
for i = 1, #entries, 2 do
  local letter = redis.call('HGET', LETTERS, entries[i]) or ''
  local record, readable, size = read_letter(letter)
  if not readable then
    -- Its beginning: it may have any size.
    local ours = record and string.find(letter, '^%d+ unreadable %d+ 0\n')
    record = string.sub(ours and record or letter, 1, LIMITS.UNREADABLE_SHOWN_BYTES)
    letter = (ours and string.match(letter, '^[^\n]*\n') or int(time_of(entries[i + 1])) .. ' unreadable 0 0\n') .. record
    size = #record
  end
  if #page > 0 and bytes + size > LIMITS.BATCH_MAX_BYTES then break end
  bytes = bytes + size
  if #entries[i] <= LIMITS.ID_MAX_BYTES then
    page[#page + 1] = entries[i]
    page[#page + 1] = letter
  end
  seen = seen + 1
  ended = {time_of(entries[i + 1]), entries[i]}
end
if first + seen >= redis.call('ZCOUNT', BURIED, '-inf', int(TIME_MAX)) then ended = false end
return shown({page, ended})
