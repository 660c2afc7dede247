-- The namespace at one instant. A read.
-- ARGV     nothing of its own
-- returns  live, delivered, dead letters, dead letters dropped, head or nothing, arm or nothing (node, due, at),
--          nodes: node, 'incarnation position again parked', when it is given up; three for each
--@include namespace
--@include records
--@include letters

local nodes = {}
local infos = redis.call('HGETALL', NODES)
for i = 1, #infos, 2 do
  if #infos[i] <= 64 and #infos[i + 1] <= 128 then -- others are not dtimer's, and may have any size
    nodes[#nodes + 1] = infos[i]
    nodes[#nodes + 1] = infos[i + 1]
    nodes[#nodes + 1] = time_of(redis.call('ZSCORE', LIVES, infos[i]) or 0)
  end
end
local letters = redis.call('ZCOUNT', BURIED, '(' .. int(oldest_that_exists()), '+inf')
local head = time_of(redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2]) or false
return shown({
  redis.call('ZCARD', QUEUE), redis.call('HLEN', STATES), letters, dropped, head,
  arm ~= '' and {arm, arm_due, arm_at} or false, nodes,
})
