"""The tools of a Responses request, which are flat, as those of chat completions, which are nested by kind."""

from typing import Any

from watchllm.providers.translation.reading import Loss, flag_of, list_of, text_of, wrong
from watchllm.providers.translation.responses_fields import an_object, member, no_counterpart


def tools(given: Any, loss: Loss) -> list[dict[str, Any]]:
    """Raises BadRequest, naming the tool, for one that runs at the provider."""
    return [_tool(tool, f"tools[{number}]", loss) for number, tool in enumerate(list_of(given, "tools"))]


def tool_choice(given: Any) -> Any:
    """The field `tool_choice`. Raises BadRequest for a tool that runs at the provider."""
    if type(given) is str:
        if given not in ("auto", "none", "required"):
            raise wrong("tool_choice", "auto, none, required or an object")
        return given
    choice = an_object(given, "tool_choice")
    if choice.get("type") != "allowed_tools":
        return _named(choice, "tool_choice")
    an_object(choice, "tool_choice", ("type", "mode", "tools"))
    at = "tool_choice.tools"
    allowed = list_of(member(choice, "tools", "tool_choice"), at)
    named = [_named(tool, f"{at}[{number}]") for number, tool in enumerate(allowed)]
    mode = text_of(member(choice, "mode", "tool_choice"), "tool_choice.mode")
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def _named(given: Any, path: str) -> dict[str, Any]:
    tool = an_object(given, path)
    kind = text_of(member(tool, "type", path), f"{path}.type")
    if kind not in ("function", "custom"):
        raise no_counterpart(path)
    an_object(tool, path, ("type", "name"))
    return {"type": kind, kind: {"name": text_of(member(tool, "name", path), f"{path}.name")}}


def _tool(given: Any, path: str, loss: Loss) -> dict[str, Any]:
    tool = an_object(given, path)
    kind = text_of(member(tool, "type", path), f"{path}.type")
    # Tools that may be called by name only, at once and by the model alone: that is what they are in a chat.
    for field, usual in (("defer_loading", False), ("async", False), ("allowed_callers", ["direct"])):
        if tool.pop(field, usual) != usual:
            raise no_counterpart(f"{path}.{field}")
    if kind == "function":
        return {"type": "function", "function": _function(tool, path, loss)}
    if kind == "custom":
        return {"type": "custom", "custom": _custom(tool, path)}
    raise no_counterpart(path)


def _function(tool: dict[str, Any], path: str, loss: Loss) -> dict[str, Any]:
    an_object(tool, path, ("type", "name", "description", "parameters", "strict"))
    function: dict[str, Any] = {"name": text_of(member(tool, "name", path), f"{path}.name")}
    if "description" in tool:
        function["description"] = text_of(tool["description"], f"{path}.description")
    if "parameters" in tool:
        an_object(tool["parameters"], f"{path}.parameters")
        function["parameters"] = tool["parameters"]
    if "strict" in tool:
        function["strict"] = flag_of(tool["strict"], f"{path}.strict")
    else:
        # Left out, it means "strict where the schema allows it" in Responses, and "not strict" in a chat.
        loss.exact = False
    return function


def _custom(tool: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(tool, path, ("type", "name", "description", "format"))
    custom: dict[str, Any] = {"name": text_of(member(tool, "name", path), f"{path}.name")}
    if "description" in tool:
        custom["description"] = text_of(tool["description"], f"{path}.description")
    if "format" in tool:
        custom["format"] = _format(tool["format"], f"{path}.format")
    return custom


def _format(given: Any, path: str) -> dict[str, Any]:
    fields = an_object(given, path, ("type", "syntax", "definition"))
    kind = text_of(member(fields, "type", path), f"{path}.type")
    if kind == "text":
        return {"type": "text"}
    if kind != "grammar":
        raise wrong(f"{path}.type", "text or grammar")
    grammar = {name: text_of(member(fields, name, path), f"{path}.{name}") for name in ("definition", "syntax")}
    return {"type": "grammar", "grammar": grammar}
