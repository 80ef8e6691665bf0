"""Tool definitions and the choice among them of a Messages request, as a chat request has them."""

from typing import Any

from watchllm.providers.translation.messages_fields import no_counterpart, objects, only, take_cache_control
from watchllm.providers.translation.reading import Loss, flag_of, object_of, text_of, wrong


def tools(value: Any, loss: Loss) -> list[dict[str, Any]]:
    """The functions that the client runs itself. Raises BadRequest naming `tools[i]` for what a provider would run."""
    return [_function(tool, f"tools[{number}]", loss) for number, tool in enumerate(objects(value, "tools"))]


def tool_choice(value: Any) -> dict[str, Any]:
    """The fields `tool_choice` and `parallel_tool_calls` of the chat request. Raises BadRequest."""
    choice = object_of(value, "tool_choice")
    only(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice")
    kind = choice.get("type")
    fields: dict[str, Any] = {}
    if kind == "tool":
        name = text_of(choice.get("name"), "tool_choice.name")
        fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif type(kind) is str and kind in _CHOICES:
        fields["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice.type", '"auto", "any", "tool" or "none"')
    if flag_of(choice.get("disable_parallel_tool_use"), "tool_choice.disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TOOL = frozenset(
    (
        "type",
        "name",
        "description",
        "input_schema",
        "strict",
        "cache_control",
        "eager_input_streaming",
        "defer_loading",
        "allowed_callers",
        "input_examples",
    )
)


def _function(tool: dict[str, Any], field: str, loss: Loss) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise no_counterpart(field)
    only(tool, _TOOL, field)
    take_cache_control(tool, "tools[]", loss)
    if flag_of(tool.get("eager_input_streaming"), f"{field}.eager_input_streaming"):
        # How finely arguments are streamed; what they are stays the same.
        loss.drop("tools[].eager_input_streaming")
    if flag_of(tool.get("defer_loading"), f"{field}.defer_loading"):
        raise no_counterpart(f"{field}.defer_loading")
    if tool.get("allowed_callers") not in (None, ["direct"]):
        raise no_counterpart(f"{field}.allowed_callers")
    if tool.get("input_examples") not in (None, []):
        raise no_counterpart(f"{field}.input_examples")
    function: dict[str, Any] = {"name": text_of(tool.get("name"), f"{field}.name")}
    if tool.get("description") is not None:
        function["description"] = text_of(tool["description"], f"{field}.description")
    function["parameters"] = object_of(tool.get("input_schema"), f"{field}.input_schema")
    if tool.get("strict") is not None:
        function["strict"] = flag_of(tool["strict"], f"{field}.strict")
    return {"type": "function", "function": function}
