"""The checks that OpenAI makes of a Responses request before it answers."""

from typing import Any

from watchllm.sim.openai_validation import (
    check_boolean,
    check_integer,
    check_number,
    check_object,
    require,
    wrong_type,
)
from watchllm.sim.reply import Refused

_ROLES = ("user", "assistant", "system", "developer")
# What each kind of item must have to be read here. Items of the provider's own tools are accepted as they are.
_ITEMS: dict[str, tuple[str, ...]] = {
    "function_call": ("call_id", "name", "arguments"),
    "custom_tool_call": ("call_id", "name", "input"),
    "function_call_output": ("call_id",),
    "custom_tool_call_output": ("call_id",),
    "reasoning": ("id",),
}
_HOSTED_ITEMS = (
    "file_search_call", "web_search_call", "computer_call", "computer_call_output", "code_interpreter_call",
    "image_generation_call", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output",
    "apply_patch_call", "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response",
    "mcp_call", "compaction",
)  # fmt: skip
_PARTS = {
    "input_text": "text", "output_text": "text", "refusal": "refusal", "input_image": "", "input_file": "",
    "input_audio": "",
}  # fmt: skip
_ADDRESSES = ("image_url", "file_id", "file_data", "file_url", "filename")
_INCLUDABLE = (
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
)  # fmt: skip
_MIN_OUTPUT_TOKENS = 16
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_SUMMARIES = ("auto", "concise", "detailed")


def check_response(fields: dict[str, Any]) -> None:
    """Raises Refused when the request would be refused. Unknown fields are accepted, as with chat completions."""
    require(fields, "model")
    if fields.get("background"):
        raise Refused(
            "Background responses are not supported by the simulator.", param="background", code="unsupported_value"
        )
    for name in ("conversation", "prompt"):
        if fields.get(name) is not None:
            raise Refused(f"No such {name}: the simulator keeps none.", status=404, param=name)
    for name, check in _CHECKS.items():
        if fields.get(name) is not None:
            check(name, fields[name])
    _check_tools(fields.get("tools"))
    _check_tool_choice(fields.get("tool_choice"))
    _check_text(fields.get("text"))
    _check_reasoning(fields.get("reasoning"))
    _check_include(fields.get("include"))
    if fields.get("input") is None:
        if fields.get("previous_response_id") is None:
            require(fields, "input")
    elif not isinstance(fields["input"], str):
        check_items(fields["input"])


def check_items(items: Any) -> None:
    """Raises Refused for an input that cannot be read."""
    if not isinstance(items, list):
        raise wrong_type("input", "one of a string or array of objects", items)
    for index, item in enumerate(items):
        here = f"input[{index}]"
        if not isinstance(item, dict):
            raise wrong_type(here, "an object", item)
        kind = item.get("type") or "message"
        if kind == "message":
            _check_message(here, item)
        elif kind == "item_reference":
            raise Refused(f"Item with id '{item.get('id')}' not found.", status=404, param="input")
        elif isinstance(kind, str) and kind in _ITEMS:
            for name in _ITEMS[kind]:
                _text(f"{here}.{name}", item.get(name))
            if kind.endswith("_output"):
                _content(f"{here}.output", item.get("output"))
        elif kind not in _HOSTED_ITEMS:
            raise _not_one_of(f"{here}.type", kind, ("message", *_ITEMS, *_HOSTED_ITEMS))


def check_calls(items: list[dict[str, Any]]) -> None:
    """Raises Refused for a tool's output without its call, or a call without its output."""
    calls = {item["call_id"] for item in items if item.get("type") in ("function_call", "custom_tool_call")}
    outputs = {
        item["call_id"] for item in items if item.get("type") in ("function_call_output", "custom_tool_call_output")
    }
    for missing in sorted(outputs - calls):
        raise Refused(f"No tool call found for function call output with call_id {missing}.", param="input")
    for missing in sorted(calls - outputs):
        raise Refused(f"No tool output found for function call {missing}.", param="input")


def _check_message(here: str, item: dict[str, Any]) -> None:
    role = item.get("role")
    if role is None:
        raise _missing(f"{here}.role")
    if role not in _ROLES:
        raise _not_one_of(f"{here}.role", role, _ROLES)
    _content(f"{here}.content", item.get("content"))


def _content(here: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if content is None:
        raise _missing(here)
    if not isinstance(content, list):
        raise wrong_type(here, "one of a string or array of objects", content)
    for index, part in enumerate(content):
        where = f"{here}[{index}]"
        if not isinstance(part, dict):
            raise wrong_type(where, "an object", part)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _PARTS:
            raise _not_one_of(f"{where}.type", kind, tuple(_PARTS))
        if _PARTS[kind]:
            _text(f"{where}.{_PARTS[kind]}", part.get(_PARTS[kind]))
        for name in _ADDRESSES:
            if part.get(name) is not None:
                _text(f"{where}.{name}", part[name])
        if kind == "input_audio":
            check_object(f"{where}.input_audio", part.get("input_audio"))


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    for index, tool in enumerate(tools):
        here = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(here, "an object", tool)
        _text(f"{here}.type", tool.get("type"))
        if tool["type"] in ("function", "custom"):
            _text(f"{here}.name", tool.get("name"))


def _check_tool_choice(choice: Any) -> None:
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise _not_one_of("tool_choice", choice, ("none", "auto", "required"))
    elif not isinstance(choice, dict):
        raise wrong_type("tool_choice", "one of a string or object", choice)
    else:
        _text("tool_choice.type", choice.get("type"))


def _check_text(text: Any) -> None:
    if text is None:
        return
    check_object("text", text)
    format_ = text.get("format")
    if format_ is None:
        return
    check_object("text.format", format_)
    kind = format_.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise _not_one_of("text.format.type", kind, ("json_object", "json_schema", "text"))
    if kind == "json_schema":
        _text("text.format.name", format_.get("name"))
        if format_.get("schema") is None:
            raise _missing("text.format.schema")


def _check_reasoning(reasoning: Any) -> None:
    if reasoning is None:
        return
    check_object("reasoning", reasoning)
    for name, values in (("effort", _EFFORTS), ("summary", _SUMMARIES)):
        if reasoning.get(name) is not None and reasoning[name] not in values:
            raise _not_one_of(f"reasoning.{name}", reasoning[name], values)


def _check_include(include: Any) -> None:
    if include is None:
        return
    if not isinstance(include, list):
        raise wrong_type("include", "an array of strings", include)
    for index, one in enumerate(include):
        if one not in _INCLUDABLE:
            raise _not_one_of(f"include[{index}]", one, _INCLUDABLE)


def _text(param: str, value: Any) -> None:
    if value is None:
        raise _missing(param)
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)


def _missing(param: str) -> Refused:
    return Refused(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _not_one_of(param: str, value: Any, values: tuple[str, ...]) -> Refused:
    supported = ", ".join(map(repr, values))
    return Refused(f"Invalid value: '{value}'. Supported values are: {supported}.", param=param, code="invalid_value")


_CHECKS = {
    "stream": check_boolean,
    "store": check_boolean,
    "parallel_tool_calls": check_boolean,
    "temperature": check_number(0, 2),
    "top_p": check_number(0, 1),
    "top_logprobs": check_integer(0, 20),
    "max_output_tokens": check_integer(_MIN_OUTPUT_TOKENS, 1_000_000),
    "instructions": _text,
    "previous_response_id": _text,
    "metadata": check_object,
}
