-- The ring of nodes and the arm (D6, D8, N1, N3, W2 to W5); the twin of semantics/ring.py.
-- NODES   node -> 'incarnation position again parked', parked being full, suspect, unreached or -, and again what its
--         join is answered when it is repeated
-- RING    the nodes that are not parked, by position
-- LIVES   all nodes, by the time at which they are given up
--@include namespace

local function node_info(node)
  local info = redis.call('HGET', NODES, node)
  if not info then return nil end
  -- What no client gives itself as an incarnation does not fence one.
  return string.match(info, '^([%l%d-]+) (%d+) ([24]) (%S+)$')
end

-- 1 joined, 2 not joined (or known as an earlier incarnation: the later join was lost), 3 fenced (N1);
-- then its position, what a repeated join is answered, and why it is parked
local function member_status(node, incarnation)
  local found, where, again, parked = node_info(node)
  if found == incarnation then return 1, where, again, parked end
  return (not found or found < incarnation) and 2 or 3
end

-- poll: the longest that it goes without a claim, in us
local function sign_of_life(node, poll)
  redis.call('ZADD', LIVES, int(at + LIMITS.MEMBER_LIFE_POLLS * tonumber(poll)), node)
end

-- It was not silent for so long that it would be removed (N3).
local function is_alive(node)
  local until_when = time_of(redis.call('ZSCORE', LIVES, node))
  return until_when and until_when > at
end

local function place(node, incarnation, where, again, parked)
  redis.call('HSET', NODES, node, incarnation .. ' ' .. int(where) .. ' ' .. again .. ' ' .. parked)
  if parked == '-' then
    redis.call('ZADD', RING, where, node)
  else
    redis.call('ZREM', RING, node)
    if arm == node then arm = '' end
  end
end

local function park(node, why)
  local incarnation, where, again = node_info(node)
  if incarnation then
    place(node, incarnation, tonumber(where), again, why)
  else -- somebody else took it out of NODES: it cannot be asked any more
    redis.call('ZREM', RING, node)
    if arm == node then arm = '' end
  end
end

local function remove_node(node)
  redis.call('HDEL', NODES, node)
  redis.call('ZREM', RING, node)
  redis.call('ZREM', LIVES, node)
  if arm == node then arm = '' end
end

-- Members without a sign of life for too long go (N3).
local function expire_nodes()
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', LIVES, '-inf', int(at), 'LIMIT', 0, LIMITS.CLAIM_EXTRA_ENTRIES)) do
    remove_node(node)
  end
end

-- An eligible node is armed for no later than the head, if there are both (W2). A claimer learns it from its reply (W4).
local function settle(claimer)
  if arm == '' and not redis.call('ZRANGE', RING, 0, 0)[1] then return end
  local head = time_of(redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')[2])
  if not head then
    if claimer and arm == claimer then arm = '' end
    return
  end
  if claimer and arm == claimer then arm_due, arm_at = head, math.max(head, at) end
  local tries = 0
  while arm == '' or head < arm_due do
    if arm == '' then arm = redis.call('ZRANGE', RING, 0, 0)[1] or '' end
    if arm == '' then return end
    if tries == LIMITS.ANNOUNCE_MAX_TRIES then
      arm = ''
      return
    end
    tries = tries + 1
    if not string.find(arm, '^[%w_.-]+$') or #arm > 64 then -- no node of ours (P2): nobody listens under such a name
      redis.call('ZREM', RING, arm)
      arm = ''
    else
      arm_due, arm_at = head, math.max(head, at)
      if arm == claimer then return end
      -- Publishing is guarded: a refusal, by an ACL for one, counts as nobody having heard it (F5).
      local heard = redis.pcall('PUBLISH', ARGV[2] .. epoch .. ':n:' .. arm, string.format('1 %d %d %d', head, at, seq))
      local reached = type(heard) == 'number' and heard > 0
      announced = announced .. ' ' .. arm .. ' ' .. int(head) .. (reached and ' 1' or ' 0')
      if not reached then park(arm, 'unreached') end
    end
  end
end

-- The reply of an operation that may have changed the namespace, and may begin a branch of its history (O1, O2, W2).
local function applied(value, claimer)
  last = math.max(last, at)
  settle(claimer)
  if branches then redis.call('HSET', META, 'branch', newest, 'branches', with_this_branch(seq - 1)) end
  save()
  return {place_in_history(), value}
end
seq = seq + 1 -- messages carry it, so it is counted before any is sent
