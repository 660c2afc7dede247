-- Which servers have made the history (O2). A read.
-- ARGV     nothing of its own
-- returns  name and number of each branch, with a space behind each
--@include namespace

return shown(branches and with_this_branch(seq) or redis.call('HGET', META, 'branches') or '')
