-- Another schema of a namespace, if it has the one that is expected (F7).
-- KEYS     the nine keys of the namespace, in the usual order
-- ARGV     the schema that it has, and the new one
-- returns  1 set, 0 it has another
if redis.call('HGET', KEYS[1], 'schema') ~= ARGV[1] then return 0 end
if ARGV[2] == 'LIMITS.SCHEMA' then
  -- The upgrade is done. Nodes of an earlier version have to join with this one.
  for _, node in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do redis.call('ZREM', KEYS[5], node) end
  for _, node in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do redis.call('ZREM', KEYS[7], node) end
  local nodes = redis.call('HGETALL', KEYS[6])
  for i = 1, #nodes, 2 do redis.call('HDEL', KEYS[6], nodes[i]) end
  redis.call('HSET', KEYS[1], 'arm', '')
end
redis.call('HSET', KEYS[1], 'schema', ARGV[2])
return 1
