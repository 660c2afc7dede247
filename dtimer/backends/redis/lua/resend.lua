-- Post a dead letter again, as new (E5, P3).
-- ARGV     id, when it was buried in us or empty, due (see due_time), what to do if it exists (r, k or e)
-- returns  1 created, 2 replaced, 3 kept, 4 conflict, 5 not found, 6 unreadable
--@include ring
--@include records
--@include letters

local id, if_exists = ARGV[FIRST], ARGV[FIRST + 3]
local member = find_letter(id, ARGV[FIRST + 1])
if not member then return applied(5) end
local letter = redis.call('HGET', LETTERS, member) or ''
local record, readable = read_letter(letter)
if not readable or string.find(letter, '^%d+ unreadable ') then return applied(6) end
local exists = redis.call('ZSCORE', QUEUE, id)
if exists and if_exists ~= 'r' then return applied(if_exists == 'k' and 3 or 4) end
move(id, due_time(ARGV[FIRST + 2]))
redis.call('HSET', RECORDS, id, with_wall(record, wall_field(ARGV[FIRST + 2])))
redis.call('HDEL', STATES, id)
forget_letter(member)
return applied(exists and 2 or 1)
