-- Requests for wrk. Arguments: file of bodies (one a line) or a number N to make N-based distinct ones; key; extra header.
local requests, count, next_request = {}, 0, 0
local serial

local function headers(key, extra)
  local result = { ["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }
  if extra and extra ~= "" then
    local name, value = extra:match("^([^:]+): (.*)$")
    result[name] = value
  end
  return result
end

function init(arguments)
  local source, lines = arguments[1], headers(arguments[2], arguments[3])
  serial = tonumber(source)
  wrk.method, wrk.headers = "POST", lines
  if serial then return end
  for body in io.lines(source) do
    count = count + 1
    requests[count] = wrk.format("POST", nil, lines, body)
  end
end

function request()
  if serial then
    serial = serial + 1
    return wrk.format("POST", nil, nil, string.format(
      '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Which shelf holds part number %d?"}]}', serial))
  end
  next_request = next_request % count + 1
  return requests[next_request]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"bad_status":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
