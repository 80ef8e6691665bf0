"""A checked request of the Messages API as the simulated model sees it."""

import base64
from typing import Any

import msgspec

from watchllm.sim.answer import Ask, Tool
from watchllm.sim.conversation import Conversation, Part, data_of, seed_of, tool_schema

_encode = msgspec.json.encode


def ask_of(fields: dict[str, Any], model: str) -> Ask:
    """What is asked of the model called `model`."""
    conversation = _conversation(fields)
    tools = tuple(
        Tool(tool["name"], tool_schema(tool["input_schema"]), description=str(tool.get("description") or ""))
        for tool in fields.get("tools") or ()
        # The others are run by the provider itself, which this one does not.
        if tool.get("type") in (None, "custom")
    )
    choice = fields.get("tool_choice") or {"type": "auto"}
    kind = choice["type"]
    named = {"auto": "", "any": "*", "none": "none"}.get(kind, choice.get("name", ""))
    schema = _schema(fields)
    forced = "" if kind == "none" else named
    offered = () if kind == "none" or (conversation.answered_call and not forced) else tools
    return Ask(
        seed=seed_of(conversation, model, tools, named, schema, fields),
        text=conversation.text,
        tools=offered,
        forced_tool=forced,
        parallel=not choice.get("disable_parallel_tool_use"),
        schema=schema,
        max_tokens=fields["max_tokens"],
        stop=tuple(fields.get("stop_sequences") or ()),
    )


def _schema(fields: dict[str, Any]) -> Any:
    config = fields.get("output_config") or {}
    asked = config.get("format") or fields.get("output_format")
    return asked["schema"] if asked else None


def _conversation(fields: dict[str, Any]) -> Conversation:
    conversation = Conversation()
    for block in _blocks(fields.get("system")):
        conversation.instruct(block["text"])
    for message in fields["messages"]:
        blocks = _blocks(message["content"])
        if message["role"] == "system":
            for block in blocks:
                conversation.instruct(block["text"])
        elif message["role"] == "user":
            _user(conversation, blocks)
        else:
            _assistant(conversation, blocks)
    return conversation


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []


def _user(conversation: Conversation, blocks: list[dict[str, Any]]) -> None:
    said: list[Part] = []
    for block in blocks:
        if block["type"] == "tool_result":
            conversation.result([part for inner in _blocks(block.get("content")) for part in _parts(inner)])
        else:
            said += _parts(block)
    if said:
        conversation.say("user", said)


def _assistant(conversation: Conversation, blocks: list[dict[str, Any]]) -> None:
    said = [part for block in blocks if block["type"] == "text" for part in _parts(block)]
    conversation.say("assistant", said)
    for block in blocks:
        if block["type"] == "tool_use":
            conversation.call(block["name"], _encode(block["input"]).decode())


def _parts(block: dict[str, Any]) -> list[Part]:
    kind = block["type"]
    if kind == "text":
        return [Part("text", block["text"])]
    if kind == "image":
        return [Part("image", _source(block["source"]))]
    if kind == "document":
        source = block["source"]
        if source.get("type") == "content":
            return [part for inner in _blocks(source.get("content")) for part in _parts(inner)]
        return [Part("file", _source(source))]
    if kind == "search_result":
        return [part for inner in _blocks(block.get("content")) for part in _parts(inner)]
    return []


def _source(source: dict[str, Any]) -> str:
    kind = source.get("type")
    if kind == "text":
        return base64.b64encode(str(source.get("data")).encode()).decode()
    return data_of(str(source.get("data") or source.get("url") or source.get("file_id") or ""))
