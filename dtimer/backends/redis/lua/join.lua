-- Put a member at the ring's end, fencing an earlier incarnation (N1, F1).
-- ARGV     node, incarnation, the longest it goes without a claim in us
-- returns  1 joined, 2 this very incarnation was there, 3 a later one is there, 4 joined, now or before, in place of
--          an earlier one that was alive
--@include ring
--@include refusals

local node, incarnation = ARGV[FIRST], ARGV[FIRST + 1]
local outcome = 1
write_though_full()
local status, _, again = member_status(node, incarnation)
if status == 1 then
  outcome = again + 0
elseif status == 3 then
  outcome = 3
else
  if node_info(node) and is_alive(node) then outcome = 4 end
  remove_node(node)
  position = position + 1
  place(node, incarnation, position, outcome == 4 and 4 or 2, '-')
  redis.call('HSET', META, 'joins', int(joins() + 1))
end
if outcome ~= 3 then sign_of_life(node, ARGV[FIRST + 2]) end
expire_nodes()
return applied(outcome)
