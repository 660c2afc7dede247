-- Put a member at the ring's end, fencing an earlier incarnation (N1).
-- ARGV     node, incarnation, the longest it goes without a claim in us
-- returns  1 joined, 0 this very incarnation was there
--@include ring
--@include refusals

local node, incarnation = ARGV[FIRST], ARGV[FIRST + 1]
local joined = 0
write_though_full()
if member_status(node, incarnation) ~= 1 then
  remove_node(node)
  position = position + 1
  place(node, incarnation, position, '-')
  redis.call('HSET', META, 'joins', int(joins() + 1))
  joined = 1
end
sign_of_life(node, ARGV[FIRST + 2])
expire_nodes()
return applied(joined)
