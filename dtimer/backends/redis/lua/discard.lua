-- Forget dead letters (E5).
-- ARGV     for each: id, when it was buried in us or empty
-- returns  a digit for each: 1 discarded, 2 not found
--@include ring
--@include records
--@include letters

write_though_full()
local outcomes = {}
for i = FIRST, #ARGV, 2 do
  outcomes[#outcomes + 1] = 2
  local member = find_letter(ARGV[i], ARGV[i + 1])
  if member then
    forget_letter(member)
    outcomes[#outcomes] = 1
  end
end
return applied(table.concat(outcomes))
