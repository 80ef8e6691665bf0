"""Which run of which server a script runs on. What another one has, from a file or as a replica that lagged, may be of
the past: what must not be is marked with the run that it is of. Hosted servers that do not tell are taken for one."""

LUA = """
local function server()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or '?'
end
"""
