"""The tools of a chat, which are nested by kind, as those of a Responses request, which are flat."""

from typing import Any

from watchllm.providers.translation.reading import Loss, flag_of, list_of, object_of, refusal, refuse_others, text_of
from watchllm.providers.translation.turns_chat_to_responses import DIALECT, drop_hints

_KINDS = ("function", "custom")


def translate_tools(given: Any, loss: Loss) -> list[dict[str, Any]]:
    """Raises BadRequest, naming the tool, for one that chats do not have."""
    tools = []
    for number, tool in enumerate(list_of(given, "tools")):
        where = f"tools[{number}]"
        kind, inner = _held(drop_hints(object_of(tool, where), where, loss), where)
        tools.append(_function(inner, where) if kind == "function" else _custom(inner, where))
    return tools


def translate_choice(given: Any) -> Any:
    """The field `tool_choice`. Raises BadRequest."""
    if type(given) is str:
        if given not in ("auto", "none", "required"):
            raise refusal("tool_choice", "must be `auto`, `none`, `required`, or an object.")
        return given
    if object_of(given, "tool_choice").get("type") != "allowed_tools":
        return _named(given, "tool_choice")
    refuse_others(given, ("type", "allowed_tools"), "tool_choice", DIALECT)
    where = "tool_choice.allowed_tools"
    allowed = object_of(given.get("allowed_tools"), where)
    refuse_others(allowed, ("mode", "tools"), where, DIALECT)
    tools = list_of(allowed.get("tools"), f"{where}.tools")
    return {
        "type": "allowed_tools",
        "mode": text_of(allowed.get("mode"), f"{where}.mode"),
        "tools": [_named(tool, f"{where}.tools[{number}]") for number, tool in enumerate(tools)],
    }


def _named(given: Any, where: str) -> dict[str, Any]:
    kind, inner = _held(object_of(given, where), where)
    refuse_others(inner, ("name",), f"{where}.{kind}", DIALECT)
    return {"type": kind, "name": text_of(inner.get("name"), f"{where}.{kind}.name")}


def _held(tool: dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The kind of a tool, and the object that is nested under it."""
    kind: Any = tool.get("type")
    if kind not in _KINDS:
        raise refusal(f"{where}.type", "must be `function` or `custom`.")
    refuse_others(tool, ("type", kind), where, DIALECT)
    return kind, object_of(tool.get(kind), f"{where}.{kind}")


def _function(function: dict[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}.function"
    refuse_others(function, ("name", "description", "parameters", "strict"), where, DIALECT)
    tool: dict[str, Any] = {"type": "function", "name": text_of(function.get("name"), f"{where}.name")}
    if function.get("description") is not None:
        tool["description"] = text_of(function["description"], f"{where}.description")
    # Both have to be said: a function without parameters by null; and Responses make a function strict where they can
    # unless they are told not to.
    parameters = function.get("parameters")
    tool["parameters"] = None if parameters is None else object_of(parameters, f"{where}.parameters")
    tool["strict"] = flag_of(function.get("strict"), f"{where}.strict")
    return tool


def _custom(custom: dict[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}.custom"
    refuse_others(custom, ("name", "description", "format"), where, DIALECT)
    tool: dict[str, Any] = {"type": "custom", "name": text_of(custom.get("name"), f"{where}.name")}
    if custom.get("description") is not None:
        tool["description"] = text_of(custom["description"], f"{where}.description")
    if custom.get("format") is not None:
        tool["format"] = _format(custom["format"], f"{where}.format")
    return tool


def _format(given: Any, where: str) -> dict[str, Any]:
    kind = object_of(given, where).get("type")
    if kind == "text":
        refuse_others(given, ("type",), where, DIALECT)
        return {"type": "text"}
    if kind != "grammar":
        raise refusal(f"{where}.type", "must be `text` or `grammar`.")
    refuse_others(given, ("type", "grammar"), where, DIALECT)
    where = f"{where}.grammar"
    grammar = object_of(given.get("grammar"), where)
    refuse_others(grammar, ("syntax", "definition"), where, DIALECT)
    return {"type": "grammar"} | {
        name: text_of(grammar.get(name), f"{where}.{name}") for name in ("syntax", "definition")
    }
