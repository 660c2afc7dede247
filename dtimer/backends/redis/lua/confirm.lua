-- End unconfirmed events by their newest receipts (E1).
-- ARGV     for each: id, number, nonce
-- returns  a digit for each: 1 confirmed, 2 stale, 3 not found
--@include ring
--@include records
--@include receipts

write_though_full()
return applied(confirm_all(FIRST, (#ARGV - FIRST + 1) / 3))
