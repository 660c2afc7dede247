-- Forget dead letters (E5).
-- ARGV     ids
-- returns  a digit for each: 1 discarded, 2 not found
--@include ring
--@include records
--@include letters

write_though_full()
local outcomes = {}
for i = FIRST, #ARGV do
  outcomes[#outcomes + 1] = 2
  if letter_exists(ARGV[i]) then
    forget_letter(ARGV[i])
    outcomes[#outcomes] = 1
  end
end
return applied(table.concat(outcomes))
