-- Move deadlines of deliveries, each to now + its timeout (E4).
-- ARGV     for each: id, number, nonce, timeout in us
-- returns  a digit for each: 1 extended, 2 stale, 3 not found
--@include ring
--@include records
--@include receipts

write_though_full()
return applied(extend_all(FIRST))
