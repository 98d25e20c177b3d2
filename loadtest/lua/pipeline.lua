-- Sixteen requests in one write; wrk counts the answers and takes the latency of each batch.
local depth = 16

init = function(args)
  local batch = {}
  for i = 1, depth do
    batch[i] = wrk.format(nil, "/")
  end
  request_bytes = table.concat(batch)
end

request = function()
  return request_bytes
end
