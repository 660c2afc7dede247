-- Take a member out; its arm goes to another (N1).
-- ARGV     node, incarnation
-- returns  1 left, 0 this incarnation was not there
--@include ring

write_though_full()
local left = 0
if member_status(ARGV[FIRST], ARGV[FIRST + 1]) == 1 then
  remove_node(ARGV[FIRST])
  left = 1
end
return applied(left)
