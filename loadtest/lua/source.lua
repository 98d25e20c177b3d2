-- Requests in the name of a client with a public address, as a trusted proxy passes them on: `-- ADDRESS [MS]` after wrk's own
-- arguments; each connection rests for so many milliseconds before a request.
local pace = 0

init = function(args)
  wrk.headers["X-Forwarded-For"] = args[1]
  pace = tonumber(args[2] or "0")
end

delay = function()
  return pace
end
