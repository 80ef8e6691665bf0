"""A checked request of the Responses API as the simulated model sees it."""

from typing import Any

from watchllm.sim.answer import Ask, Tool
from watchllm.sim.conversation import Conversation, Part, data_of, seed_of, tool_schema, tools_tokens
from watchllm.sim.reply import Refused

_OWN_TOOLS = ("function", "custom")


def input_items(given: Any) -> list[dict[str, Any]]:
    """The request's input as a list of items."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return given or []


def ask_of(fields: dict[str, Any], items: list[dict[str, Any]], model: str) -> tuple[Ask, int]:
    """What is asked of the model called `model`, and the prompt's tokens. Raises Refused."""
    conversation = _conversation(fields.get("instructions"), items)
    tools = tuple(
        Tool(
            tool["name"],
            tool_schema(tool.get("parameters")),
            free=tool["type"] == "custom",
            description=str(tool.get("description") or ""),
        )
        for tool in fields.get("tools") or ()
        # The others are run by the provider itself, which this one does not.
        if tool["type"] in _OWN_TOOLS
    )
    choice = _choice(fields.get("tool_choice"), tools)
    forced = "" if choice == "none" else choice
    offered = () if choice == "none" or (conversation.answered_call and not forced) else tools
    format_ = (fields.get("text") or {}).get("format") or {"type": "text"}
    schema = {"text": None, "json_object": True}.get(format_["type"], format_.get("schema"))
    ask = Ask(
        seed=seed_of(conversation, model, tools, choice, schema, fields),
        text=conversation.text,
        tools=offered,
        forced_tool=forced,
        parallel=fields.get("parallel_tool_calls") is not False,
        schema=schema,
        max_tokens=fields.get("max_output_tokens"),
    )
    return ask, conversation.tokens + tools_tokens(fields.get("tools"), format_.get("schema"))


def _choice(choice: Any, tools: tuple[Tool, ...]) -> str:
    if isinstance(choice, str):
        return {"required": "*", "none": "none"}.get(choice, "")
    if not choice:
        return ""
    if choice["type"] == "allowed_tools":
        return "*" if choice.get("mode") == "required" else ""
    if choice["type"] not in _OWN_TOOLS:
        return ""
    name = choice.get("name")
    if not any(tool.name == name for tool in tools):
        raise Refused(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    return str(name)


def _conversation(instructions: Any, items: list[dict[str, Any]]) -> Conversation:
    conversation = Conversation()
    if instructions:
        conversation.instruct(instructions)
    for item in items:
        kind = item.get("type") or "message"
        if kind == "message":
            parts = _parts(item["content"])
            if item["role"] in ("system", "developer"):
                for part in parts:
                    conversation.instruct(part.value)
            else:
                conversation.say(item["role"], parts)
        elif kind in ("function_call", "custom_tool_call"):
            conversation.call(item["name"], item["arguments" if kind == "function_call" else "input"])
        elif kind in ("function_call_output", "custom_tool_call_output"):
            conversation.result(_parts(item["output"]))
    return conversation


def _parts(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part("text", content)]
    return [_part(part, part["type"]) for part in content]


def _part(part: dict[str, Any], kind: str) -> Part:
    if kind == "input_image":
        return Part("image", data_of(part.get("image_url") or part.get("file_id") or ""))
    if kind == "input_file":
        return Part("file", data_of(part.get("file_data") or part.get("file_url") or part.get("file_id") or ""))
    if kind == "input_audio":
        return Part("audio", str((part.get("input_audio") or {}).get("data", "")))
    return Part("text", part["refusal" if kind == "refusal" else "text"])
