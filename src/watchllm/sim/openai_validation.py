"""The checks that OpenAI makes before it answers, with its messages, parameters and codes."""

from collections.abc import Callable
from typing import Any

from watchllm.sim.reply import Refused

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_PART_TYPES = ("text", "image_url", "input_audio", "file", "refusal")
_MAX_STOPS = 4
_MAX_CHOICES = 128


def check_chat(fields: dict[str, Any]) -> None:
    """Raises Refused when a chat completion request would be refused. Unknown fields are accepted: newer clients send
    fields that this simulator does not know yet."""
    require(fields, "model")
    require(fields, "messages")
    _check_known(fields)
    if fields.get("top_logprobs") is not None and not fields.get("logprobs"):
        raise Refused("'top_logprobs' is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    _check_messages(fields["messages"])
    if fields.get("tool_choice") is not None and not fields.get("tools"):
        raise Refused(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
        )


def check_completion(fields: dict[str, Any]) -> None:
    """Raises Refused when a legacy completion request would be refused."""
    require(fields, "model")
    _check_known({name: value for name, value in fields.items() if name != "logprobs"})
    logprobs = fields.get("logprobs")
    if logprobs is not None:
        check_integer(0, 5)("logprobs", logprobs)


def require(fields: dict[str, Any], name: str) -> None:
    """Raises Refused when the field is missing or null."""
    if fields.get(name) is None:
        if name == "model":
            raise Refused("you must provide a model parameter", param=None)
        raise Refused(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if name == "model" and not (isinstance(fields[name], str) and fields[name]):
        raise wrong_type("model", "a string", fields[name])


def wrong_type(param: str, expected: str, value: Any) -> Refused:
    """The refusal of a value of the wrong JSON type."""
    return Refused(
        f"Invalid type for '{param}': expected {expected}, but got {_json_type(value)} instead.",
        param=param,
        code="invalid_type",
    )


def _check_known(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check is not None and value is not None:
            check(name, value)
    if fields.get("stream_options") is not None and not fields.get("stream"):
        raise Refused(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise Refused(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = message.get("role")
        if role is None:
            raise Refused(
                f"Missing required parameter: '{where}.role'.", param=f"{where}.role", code="missing_required_parameter"
            )
        if role not in _ROLES:
            expected = ", ".join(f"'{name}'" for name in _ROLES)
            raise Refused(
                f"Invalid value: '{role}'. Supported values are: {expected}.",
                param=f"{where}.role",
                code="invalid_value",
            )
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise Refused(
                f"Missing required parameter: '{where}.tool_call_id'.",
                param=f"{where}.tool_call_id",
                code="missing_required_parameter",
            )
        content = message.get("content")
        if isinstance(content, list):
            _check_parts(content, where)
        elif content is None:
            if role != "assistant":
                raise wrong_type(f"{where}.content", "one of a string or array of objects", content)
        elif not isinstance(content, str):
            raise wrong_type(f"{where}.content", "one of a string or array of objects", content)


def _check_parts(parts: list[Any], where: str) -> None:
    for index, part in enumerate(parts):
        here = f"{where}.content[{index}]"
        if not isinstance(part, dict):
            raise wrong_type(here, "an object", part)
        kind = part.get("type")
        if kind not in _PART_TYPES:
            raise Refused(
                f"Invalid value: '{kind}'. Supported values are: {', '.join(repr(name) for name in _PART_TYPES)}.",
                param=f"{here}.type",
                code="invalid_value",
            )
        if kind == "text" and not isinstance(part.get("text"), str):
            raise wrong_type(f"{here}.text", "a string", part.get("text"))
        if kind == "image_url" and not (
            isinstance(part.get("image_url"), dict) and isinstance(part["image_url"].get("url"), str)
        ):
            raise Refused(
                f"Missing required parameter: '{here}.image_url.url'.",
                param=f"{here}.image_url.url",
                code="missing_required_parameter",
            )


def check_boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)


def check_integer(low: int, high: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(name, "an integer", value)
        _within("integer", name, value, low, high)

    return check


def check_number(low: float, high: float) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(name, "a decimal", value)
        _within("decimal", name, value, low, high)

    return check


def _within(kind: str, name: str, value: float, low: float, high: float) -> None:
    if value < low:
        raise Refused(
            f"Invalid '{name}': {kind} below minimum value. Expected a value >= {low}, but got {value} instead.",
            param=name,
            code=f"{kind}_below_min_value",
        )
    if value > high:
        raise Refused(
            f"Invalid '{name}': {kind} above maximum value. Expected a value <= {high}, but got {value} instead.",
            param=name,
            code=f"{kind}_above_max_value",
        )


def _stop(name: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise wrong_type(name, "one of a string or array of strings", value)
    if len(value) > _MAX_STOPS:
        raise Refused(
            f"Invalid 'stop': array too long. Expected an array with maximum length {_MAX_STOPS}, "
            f"but got an array with length {len(value)} instead.",
            param=name,
            code="array_above_max_length",
        )


def check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)


def _tools(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise wrong_type(name, "an array of objects", value)
    for index, tool in enumerate(value):
        here = f"{name}[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(here, "an object", tool)
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            raise Refused(
                f"Invalid value: '{kind}'. Supported values are: 'function' and 'custom'.",
                param=f"{here}.type",
                code="invalid_value",
            )
        body = tool.get(kind)
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            raise Refused(
                f"Missing required parameter: '{here}.{kind}.name'.",
                param=f"{here}.{kind}.name",
                code="missing_required_parameter",
            )


def _tool_choice(name: str, value: Any) -> None:
    if isinstance(value, str):
        if value not in ("none", "auto", "required"):
            raise Refused(
                f"Invalid value: '{value}'. Supported values are: 'none', 'auto', and 'required'.",
                param=name,
                code="invalid_value",
            )
    elif not isinstance(value, dict):
        raise wrong_type(name, "one of a string or object", value)


def _response_format(name: str, value: Any) -> None:
    check_object(name, value)
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise Refused(
            f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
            param=f"{name}.type",
            code="invalid_value",
        )
    if kind == "json_schema":
        body = value.get("json_schema")
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            raise Refused(
                f"Missing required parameter: '{name}.json_schema.name'.",
                param=f"{name}.json_schema.name",
                code="missing_required_parameter",
            )


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return names[type(value)]


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "stream": check_boolean,
    "stream_options": check_object,
    "temperature": check_number(0, 2),
    "top_p": check_number(0, 1),
    "presence_penalty": check_number(-2, 2),
    "frequency_penalty": check_number(-2, 2),
    "n": check_integer(1, _MAX_CHOICES),
    "best_of": check_integer(1, _MAX_CHOICES),
    "max_tokens": check_integer(1, 1_000_000),
    "max_completion_tokens": check_integer(1, 1_000_000),
    "logprobs": check_boolean,
    "top_logprobs": check_integer(0, 20),
    "stop": _stop,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": check_boolean,
    "response_format": _response_format,
    "logit_bias": check_object,
}
