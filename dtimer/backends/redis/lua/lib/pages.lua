-- Pages of a sorted set, in the order of (score, bytes of the id).

-- Lua's own comparison goes by the server's locale.
local function bytes_after(one, other)
  local length = math.min(#one, #other)
  for i = 1, length do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- How many entries stand at or before (score, id), whether or not it is still there.
local function rank_after(key, score, id)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if bytes_after(redis.call('ZRANGE', key, middle, middle)[1], id) then high = middle else low = middle + 1 end
  end
  return low
end
