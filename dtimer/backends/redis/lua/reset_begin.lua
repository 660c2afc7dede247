-- Begin to take the skew out of all times that are kept, unless a node is joined (T2).
-- From then on META has two fields more. 'partitions' is 'clock-reset number', which no other operation accepts;
-- 'reset' is 'skew at done_events done_letters': what is taken off, the store's time, and how far it has got.
-- ARGV     nothing of its own
-- returns  the skew in us, then the nodes that are joined; nothing is begun if there are any, or no skew
--@include namespace

-- Silent members are removed by claims and joins only.
local nodes = redis.call('ZRANGEBYSCORE', LIVES, '(' .. int(at), '+inf')
write_though_full()
if #nodes == 0 and skew > 0 then
  redis.call('HSET', META, 'partitions', 'clock-reset ' .. ARGV[4], 'reset', string.format('%d %d 0 0', skew, at))
end
return shown({skew, nodes})
