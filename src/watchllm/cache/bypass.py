"""Requests that the cache has to leave alone: they depend on, or change, state that the provider keeps."""

from collections.abc import Mapping
from typing import Any


def bypass_reason(request: Mapping[str, Any]) -> str | None:
    """Why the answer to `request` is neither read from the cache nor stored, in a few words; None = it may be cached.

    The request's own words (`store`, `previous_response_id`…) or the name of a tool that runs at the provider and
    sees the world as it is now. Values of a wrong type are judged on the safe side.
    """
    for field in _STATEFUL & request.keys():
        value = request[field]
        if value is not None and value is not False and value != []:
            return field
    if type(request.get("prompt")) is dict:
        return "prompt"  # a template that is kept, and edited, at the provider
    tools = request.get("tools")
    if type(tools) is list:
        for tool in tools:
            kind = tool.get("type") if type(tool) is dict else None
            if kind is not None and kind not in _CLIENT_TOOLS:
                return f"tool {kind}" if type(kind) is str else "tools"
    return None


_STATEFUL = frozenset(
    (
        "store",
        "previous_response_id",
        "conversation",
        "background",
        # Search and remote tools that vendors switch on by a field of their own instead of an entry in `tools`.
        "web_search_options",
        "search_parameters",
        "plugins",
        "mcp_servers",
        "container",
    )
)

# Tools that the client runs; every other type runs at the provider. A list, because `in` must take any JSON value.
_CLIENT_TOOLS = ["function", "custom"]
