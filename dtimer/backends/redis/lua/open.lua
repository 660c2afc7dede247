-- Learn the epoch; make the namespace if it is new (F7). A read.
-- ARGV     nothing of its own
-- returns  nothing
--@include namespace

return shown(false)
