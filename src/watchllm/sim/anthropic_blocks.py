"""The checks that Anthropic makes of a conversation: roles, blocks, and that every tool call has its result."""

from typing import Any

from watchllm.sim.reply import Refused

_ROLES = ("user", "assistant", "system")
_SOURCES = {
    "image": ("base64", "url", "file"),
    "document": ("base64", "text", "content", "url", "file"),
}
# What each kind of block must have, beside its type, to be read here.
_BLOCKS: dict[str, dict[str, type]] = {
    "text": {"text": str},
    "image": {"source": dict},
    "document": {"source": dict},
    "search_result": {"source": str, "title": str, "content": list},
    "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"tool_use_id": str},
    "thinking": {"thinking": str, "signature": str},
    "redacted_thinking": {"data": str},
}
# Blocks of the provider's own tools come back in a conversation; they are not looked into.
_SERVER_BLOCKS = ("server_tool_use", "mcp_tool_use", "container_upload", "tool_reference")
_NAMES: dict[type, str] = {str: "string", dict: "dictionary", list: "list"}


def check_system(system: Any) -> None:
    """Raises Refused for a system prompt that is neither text nor text blocks."""
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise Refused("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        check_block(f"system.{index}", block, ("text",))


def check_conversation(messages: Any) -> None:
    """Raises Refused for messages that cannot be read or do not fit together. Turns of one role that follow each other
    are one turn."""
    if not isinstance(messages, list):
        raise Refused("messages: Input should be a valid list")
    if not messages:
        raise Refused("messages: at least one message is required")
    for index, message in enumerate(messages):
        _check_message(f"messages.{index}", message, last=index == len(messages) - 1)
    if messages[0]["role"] == "assistant":
        raise Refused('messages: first message must use the "user" role')
    _check_prefill(messages[-1])
    _check_calls(messages)


def check_no_leftovers(messages: list[dict[str, Any]]) -> None:
    """Raises Refused for what version 2026-10-21 no longer takes: documents of the assistant, citations of the user."""
    for index, message in enumerate(messages):
        for at, block in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            here = f"messages.{index}.content.{at}"
            if message["role"] == "assistant" and block["type"] == "document":
                raise Refused(f"{here}: `document` blocks are not permitted in `assistant` messages")
            inner = block["content"] if block["type"] == "search_result" else [block]
            if message["role"] == "user" and any(one["type"] == "text" and one.get("citations") for one in inner):
                raise Refused(f"{here}.text.citations: Extra inputs are not permitted")


def _check_message(here: str, message: Any, *, last: bool) -> None:
    if not isinstance(message, dict):
        raise Refused(f"{here}: Input should be a valid dictionary")
    for name in ("role", "content"):
        if name not in message:
            raise Refused(f"{here}.{name}: Field required")
    role, content = message["role"], message["content"]
    if role not in _ROLES:
        raise Refused(f"{here}.role: Input should be 'user' or 'assistant'")
    for name in message:
        if name not in ("role", "content"):
            raise Refused(f"{here}.{name}: Extra inputs are not permitted")
    if not isinstance(content, str | list):
        raise Refused(f"{here}.content: Input should be a valid list")
    if not content and not (last and role == "assistant"):
        raise Refused(
            f"{here}: all messages must have non-empty content except for the optional final assistant message"
        )
    for at, block in enumerate(content if isinstance(content, list) else ()):
        check_block(f"{here}.content.{at}", block, ("text",) if role == "system" else tuple(_BLOCKS))


def check_block(here: str, block: Any, kinds: tuple[str, ...]) -> None:
    """Raises Refused for a block that is not of one of `kinds` or lacks something."""
    if not isinstance(block, dict):
        raise Refused(f"{here}: Input should be a valid dictionary")
    kind = block.get("type")
    if not isinstance(kind, str):
        raise Refused(f"{here}.type: Field required")
    if kind not in kinds:
        if len(kinds) > 1 and (kind in _SERVER_BLOCKS or kind.endswith("_tool_result")):
            return
        raise Refused(
            f"{here}: Input tag '{kind}' found using 'type' does not match any of the expected tags: "
            + ", ".join(map(repr, kinds))
        )
    for name, wanted in _BLOCKS[kind].items():
        if name not in block:
            raise Refused(f"{here}.{kind}.{name}: Field required")
        if not isinstance(block[name], wanted):
            raise Refused(f"{here}.{kind}.{name}: Input should be a valid {_NAMES[wanted]}")
    if kind == "text" and not block["text"]:
        raise Refused("messages: text content blocks must be non-empty")
    if kind in _SOURCES:
        _check_source(f"{here}.{kind}.source", block["source"], _SOURCES[kind])
    _check_inner(here, kind, block)


def _check_inner(here: str, kind: str, block: dict[str, Any]) -> None:
    citations = block.get("citations")
    if kind == "document" and citations is not None and not isinstance(citations, dict):
        raise Refused(f"{here}.document.citations: Input should be a valid dictionary")
    if kind in ("tool_result", "search_result"):
        content = block.get("content")
        if content is not None and not isinstance(content, str | list):
            raise Refused(f"{here}.{kind}.content: Input should be a valid list")
        inner = ("text", "image", "document", "search_result") if kind == "tool_result" else ("text",)
        for at, one in enumerate(content if isinstance(content, list) else ()):
            check_block(f"{here}.{kind}.content.{at}", one, inner)


def _check_source(here: str, source: dict[str, Any], kinds: tuple[str, ...]) -> None:
    kind = source.get("type")
    if kind not in kinds:
        expected = ", ".join(map(repr, kinds))
        raise Refused(
            f"{here}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}"
        )
    if kind == "content":
        content = source.get("content")
        if not isinstance(content, str | list):
            raise Refused(f"{here}.content.content: Field required")
        for at, one in enumerate(content if isinstance(content, list) else ()):
            check_block(f"{here}.content.{at}", one, ("text", "image"))
        return
    name = {"url": "url", "file": "file_id"}.get(kind, "data")
    wanted = (name, "media_type") if name == "data" else (name,)
    for field in wanted:
        if not isinstance(source.get(field), str):
            raise Refused(f"{here}.{kind}.{field}: Field required")


def _check_prefill(last: dict[str, Any]) -> None:
    if last["role"] != "assistant":
        return
    content = last["content"]
    if isinstance(content, list):
        content = content[-1].get("text", "") if content else ""
    if content and content != content.rstrip():
        raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _check_calls(messages: list[dict[str, Any]]) -> None:
    """Every `tool_use` has its `tool_result` in the next turn, and the reverse."""
    open_calls: list[str] = []
    before = -1
    for index, blocks in _turns(messages):
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for at, result in enumerate(results):
            if result not in open_calls:
                raise Refused(
                    f"messages.{index}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {result}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
        _check_answered(before, [call for call in open_calls if call not in results])
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        before = index
    _check_answered(before, open_calls)


def _turns(messages: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    """The blocks of each turn with the place of its last message."""
    turns: list[tuple[int, list[dict[str, Any]]]] = []
    role = ""
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        blocks = message["content"] if isinstance(message["content"], list) else []
        if message["role"] == role:
            turns[-1] = (index, turns[-1][1] + blocks)
        else:
            turns.append((index, blocks))
        role = message["role"]
    return turns


def _check_answered(index: int, missing: list[str]) -> None:
    if missing:
        raise Refused(
            f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message."
        )
