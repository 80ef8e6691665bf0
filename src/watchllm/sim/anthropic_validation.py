"""The checks that Anthropic makes before it answers, with its messages: `path.to.field: what is wrong`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from watchllm.sim.anthropic_blocks import check_conversation, check_no_leftovers, check_system
from watchllm.sim.anthropic_citations import cites
from watchllm.sim.reply import Refused

_KNOWN = frozenset(
    {
        "model", "messages", "max_tokens", "system", "metadata", "stop_sequences", "stream", "temperature", "top_k",
        "top_p", "thinking", "tools", "tool_choice", "service_tier", "cache_control", "container", "output_config",
        "output_format", "inference_geo", "speed", "diagnostics", "user_profile_id", "workspace_id",
    }
)  # fmt: skip
NEWEST_VERSION = b"2026-10-21"
_VERSIONS = (NEWEST_VERSION, b"2023-06-01", b"2023-01-01")
# What the newest version took away, even at its default.
_REMOVED = ("temperature", "top_p", "top_k")
_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_MIN_BUDGET = 1024
_MAX_MARKS = 4
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def check_version(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refused when the version of the API is not named or not known."""
    version = headers.get(b"anthropic-version")
    if not version:
        raise Refused("anthropic-version: header is required")
    if version not in _VERSIONS:
        known = ", ".join(known.decode() for known in _VERSIONS)
        raise Refused(f"anthropic-version: {version.decode('latin-1')!r} is not a valid version; expected {known}")


def check_messages(fields: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
    """Raises Refused when a request for a message would be refused."""
    for name in ("model", "max_tokens", "messages"):
        require(fields, name)
    _check_fields(fields, headers)
    _check_together(fields)


def check_count(fields: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
    """Raises Refused when a request to count tokens would be refused."""
    for name in ("model", "messages"):
        require(fields, name)
    for name in ("max_tokens", "stream", "stop_sequences"):
        if name in fields:
            raise Refused(f"{name}: Extra inputs are not permitted")
    _check_fields(fields, headers)


def require(fields: dict[str, Any], name: str) -> None:
    """Raises Refused when the field is missing."""
    if name not in fields:
        raise Refused(f"{name}: Field required")


def _check_fields(fields: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
    newest = headers.get(b"anthropic-version") == NEWEST_VERSION
    # Who names a beta may send fields that belong to it.
    lenient = b"anthropic-beta" in headers
    for name, value in fields.items():
        if (newest and name in _REMOVED) or (name not in _KNOWN and not lenient):
            raise Refused(f"{name}: Extra inputs are not permitted")
        check = _CHECKS.get(name)
        if check is not None:
            check(name, value)
    check_system(fields.get("system"))
    check_conversation(fields["messages"])
    if newest:
        check_no_leftovers(fields["messages"])
    _check_marks(fields)


def _check_together(fields: dict[str, Any]) -> None:
    choice = fields.get("tool_choice")
    names = [tool.get("name") for tool in fields.get("tools") or ()]
    if choice and not names and choice["type"] != "none":
        raise Refused("tool_choice: tool_choice may only be specified while providing tools.")
    if choice and choice["type"] == "tool" and choice["name"] not in names:
        raise Refused(f"tool_choice: Tool '{choice['name']}' not found in provided tools")
    thinking = fields.get("thinking")
    if thinking and thinking["type"] in ("enabled", "adaptive"):
        if choice and choice["type"] in ("any", "tool"):
            raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
        if fields.get("temperature") not in (None, 1):
            raise Refused("`temperature` may only be set to 1 when thinking is enabled.")
        if fields.get("top_k") is not None:
            raise Refused("`top_k` must be unset when thinking is enabled.")
        if thinking["type"] == "enabled" and thinking["budget_tokens"] >= fields["max_tokens"]:
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")
    config = fields.get("output_config") or {}
    if (config.get("format") or fields.get("output_format")) and cites(fields):
        raise Refused("output_config.format: Citations are not supported together with structured outputs.")


def _check_marks(fields: dict[str, Any]) -> None:
    blocks = [*(fields.get("tools") or ()), *_listed(fields.get("system"))]
    for message in fields["messages"]:
        blocks += _listed(message["content"])
    found = sum(bool(block.get("cache_control")) for block in blocks) + bool(fields.get("cache_control"))
    if found > _MAX_MARKS:
        raise Refused(f"A maximum of {_MAX_MARKS} blocks with cache_control may be provided. Found {found}.")
    for mark in [block.get("cache_control") for block in blocks] + [fields.get("cache_control")]:
        if mark is not None and (not isinstance(mark, dict) or mark.get("type") != "ephemeral"):
            raise Refused("cache_control.type: Input should be 'ephemeral'")


def _listed(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else []


def _model(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise Refused(f"{name}: Input should be a valid string")
    if not value:
        raise Refused(f"{name}: String should have at least 1 character")


def _boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise Refused(f"{name}: Input should be a valid boolean")


def _integer(low: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused(f"{name}: Input should be a valid integer")
        if value < low:
            raise Refused(f"{name}: Input should be greater than or equal to {low}")

    return check


def _share(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refused(f"{name}: Input should be a valid number")
    if value < 0:
        raise Refused(f"{name}: Input should be greater than or equal to 0")
    if value > 1:
        raise Refused(f"{name}: Input should be less than or equal to 1")


def _stop_sequences(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, list):
        raise Refused(f"{name}: Input should be a valid list")
    for index, one in enumerate(value):
        if not isinstance(one, str):
            raise Refused(f"{name}.{index}: Input should be a valid string")
        if not one.strip():
            raise Refused(f"{name}: each stop sequence must contain non-whitespace")


def _object(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, dict):
        raise Refused(f"{name}: Input should be a valid dictionary")


def _metadata(name: str, value: Any) -> None:
    _object(name, value)
    for key in value or {}:
        if key != "user_id":
            raise Refused(f"{name}.{key}: Extra inputs are not permitted")


def _thinking(name: str, value: Any) -> None:
    _typed(name, value, ("enabled", "disabled", "adaptive", "between_tools"))
    if value and value["type"] == "enabled":
        if "budget_tokens" not in value:
            raise Refused(f"{name}.enabled.budget_tokens: Field required")
        _integer(_MIN_BUDGET)(f"{name}.enabled.budget_tokens", value["budget_tokens"])


def _tools(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, list):
        raise Refused(f"{name}: Input should be a valid list")
    names: set[str] = set()
    for index, tool in enumerate(value):
        here = f"{name}.{index}"
        if not isinstance(tool, dict):
            raise Refused(f"{here}: Input should be a valid dictionary")
        kind = tool.get("type")
        if kind is not None and not isinstance(kind, str):
            raise Refused(f"{here}.type: Input should be a valid string")
        if kind in (None, "custom"):
            _custom_tool(f"{here}.custom", tool)
        called = tool.get("name")
        if isinstance(called, str):
            if called in names:
                raise Refused(f"{name}: Tool names must be unique.")
            names.add(called)


def _custom_tool(here: str, tool: dict[str, Any]) -> None:
    for field in ("name", "input_schema"):
        if field not in tool:
            raise Refused(f"{here}.{field}: Field required")
    if not isinstance(tool["name"], str) or not _NAME.match(tool["name"]):
        raise Refused(f"{here}.name: String should match pattern '{_NAME.pattern}'")
    schema = tool["input_schema"]
    if not isinstance(schema, dict):
        raise Refused(f"{here}.input_schema: Input should be a valid dictionary")
    if schema.get("type") != "object":
        problem = "Field required" if "type" not in schema else "Input should be 'object'"
        raise Refused(f"{here}.input_schema.type: {problem}")


def _tool_choice(name: str, value: Any) -> None:
    _typed(name, value, ("auto", "any", "tool", "none"))
    if value and value["type"] == "tool" and not isinstance(value.get("name"), str):
        raise Refused(f"{name}.tool.name: Field required")


def _output_config(name: str, value: Any) -> None:
    _object(name, value)
    value = value or {}
    if value.get("effort") not in (None, *_EFFORTS):
        raise Refused(f"{name}.effort: Input should be {', '.join(map(repr, _EFFORTS))}")
    _output_format(f"{name}.format", value.get("format"))


def _output_format(name: str, value: Any) -> None:
    _typed(name, value, ("json_schema",))
    if value and not isinstance(value.get("schema"), dict):
        raise Refused(f"{name}.schema: Field required")


def _typed(name: str, value: Any, kinds: tuple[str, ...]) -> None:
    _object(name, value)
    if value is not None and value.get("type") not in kinds:
        expected = ", ".join(map(repr, kinds))
        raise Refused(f"{name}: Input tag '{value.get('type')}' does not match any of the expected tags: {expected}")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "model": _model,
    "max_tokens": _integer(0),
    "stream": _boolean,
    "temperature": _share,
    "top_p": _share,
    "top_k": _integer(0),
    "stop_sequences": _stop_sequences,
    "metadata": _metadata,
    "thinking": _thinking,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "output_config": _output_config,
    "output_format": _output_format,
    "cache_control": _object,
}
