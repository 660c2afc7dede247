-- When a payload that a node could not decode is offered again (F4); the twin of semantics/refusals.py.

-- How often members have joined; 0 if the stored count was not written by dtimer.
local function joins()
  local text = redis.call('HGET', META, 'joins')
  return text and #text <= 15 and tonumber(string.match(text, '^%d+$') or nil) or 0
end

-- What is remembered after another refusal. A member that has joined since the last one may be able to read it.
local function one_more(before)
  local now = joins()
  if not before then return {number = 1, since = at, joins = now} end
  return {number = before.joins == now and before.number + 1 or 1, since = before.since, joins = now}
end

-- The wait after so many refusals, as due_time takes it: none, so that the ring goes round, but a growing one after
-- each round. When several rounds were in vain, one member is asked at a time.
local function wait_after(number)
  local members = math.max(redis.call('HLEN', NODES), 1)
  local rounds = math.floor(number / members)
  if rounds < LIMITS.REFUSAL_ROUNDS and number % members > 0 then return 0 end
  return -math.min(LIMITS.REFUSAL_WAIT_MIN_US * 2 ^ math.min(rounds - 1, LIMITS.REFUSAL_ROUNDS),
    LIMITS.REFUSAL_WAIT_MAX_US)
end
