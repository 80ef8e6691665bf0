"""The conversation of a Messages request as the messages that a chat user would have written.

The system prompt is the first message; results of tools are messages of their own, before the user's words that
follow them; a single text is a plain string; the input of a tool call is a string of JSON.
"""

from typing import Any

import msgspec

from watchllm.providers.translation.messages_blocks import MEDIA_KINDS, part, said, text_part, texts
from watchllm.providers.translation.messages_fields import no_counterpart, objects, only, take_cache_control
from watchllm.providers.translation.reading import Loss, flag_of, object_of, text_of, wrong


def conversation(document: dict[str, Any], loss: Loss, *, reasoning_back: bool) -> list[dict[str, Any]]:
    """The messages of the request `document`. Raises BadRequest naming what has no counterpart.

    `reasoning_back`: whether the provider takes its earlier reasoning back; without, thinking blocks are dropped.
    """
    system = document.get("system")
    messages: list[dict[str, Any]] = []
    prompt = "" if system is None else texts(system, "system", "system", loss)
    if prompt:
        messages.append({"role": "system", "content": prompt})
    turns = objects(document.get("messages"), "messages")
    if not turns:
        raise wrong("messages", "a non-empty array")
    for number, turn in enumerate(turns):
        field = f"messages[{number}]"
        only(turn, _TURN, field)
        role, content = turn.get("role"), turn.get("content")
        if role == "user":
            messages.extend(_user(content, f"{field}.content", loss))
        elif role == "assistant":
            messages.append(_assistant(content, f"{field}.content", loss, reasoning_back))
        elif role == "system":
            told = texts(content, f"{field}.content", _PLACE, loss)
            if told == []:
                raise wrong(f"{field}.content", "a string or a non-empty array")
            messages.append({"role": "system", "content": told})
        else:
            raise wrong(f"{field}.role", '"user", "assistant" or "system"')
    return messages


_encode = msgspec.json.Encoder().encode

_PLACE = "messages[].content"
_BLOCK = f"{_PLACE}[]"
_TURN = frozenset(("role", "content"))
_RESULT = frozenset(("type", "tool_use_id", "content", "is_error", "cache_control"))
_CALL = frozenset(("type", "id", "name", "input", "cache_control", "caller"))
_THINKING = frozenset(("type", "thinking", "signature"))
_REDACTED = frozenset(("type", "data"))


def _user(content: Any, field: str, loss: Loss) -> list[dict[str, Any]]:
    if type(content) is str:
        return [{"role": "user", "content": content}]
    messages: list[dict[str, Any]] = []
    media: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    blocks = objects(content, field)
    if not blocks:
        raise wrong(field, "a string or a non-empty array")
    for at, block in enumerate(blocks):
        if block.get("type") != "tool_result":
            parts.append(part(block, f"{field}[{at}]", _BLOCK, loss))
            continue
        if parts:
            # In a chat, results come right behind the calls.
            loss.exact = False
        messages.append(_tool_result(block, f"{field}[{at}]", media, loss))
    if media or parts:
        messages.append({"role": "user", "content": said(media + parts)})
    return messages


def _tool_result(block: dict[str, Any], field: str, media: list[dict[str, Any]], loss: Loss) -> dict[str, Any]:
    """The tool message. Images and documents of the result go to `media`: a chat's tool message holds text only."""
    only(block, _RESULT, field)
    take_cache_control(block, _BLOCK, loss)
    if flag_of(block.get("is_error"), f"{field}.is_error"):
        loss.exact = False
    call = text_of(block.get("tool_use_id"), f"{field}.tool_use_id")
    content = block.get("content")
    if content is None or type(content) is str:
        return {"role": "tool", "tool_call_id": call, "content": content or ""}
    place = f"{_BLOCK}.content[]"
    written: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    for at, item in enumerate(objects(content, f"{field}.content")):
        kept = seen if item.get("type") in MEDIA_KINDS else written
        kept.append(part(item, f"{field}.content[{at}]", place, loss))
    if seen:
        loss.exact = False
        media.extend(({"type": "text", "text": f"Shown by the tool call {call}:"}, *seen))
    return {"role": "tool", "tool_call_id": call, "content": said(written) or ""}


def _assistant(content: Any, field: str, loss: Loss, reasoning_back: bool) -> dict[str, Any]:
    if type(content) is str:
        return {"role": "assistant", "content": content}
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[dict[str, Any]] = []
    for number, block in enumerate(objects(content, field)):
        at = f"{field}[{number}]"
        kind = block.get("type")
        if kind == "text":
            # A chat message has its reasoning, then its text, then its calls.
            loss.exact = loss.exact and not calls
            parts.append(text_part(block, at, _BLOCK, loss))
        elif kind == "tool_use":
            calls.append(_tool_call(block, at, loss))
        elif kind in ("thinking", "redacted_thinking"):
            loss.exact = loss.exact and not calls and not parts
            thoughts.append(_thought(block, at))
        elif type(kind) is not str:
            raise wrong(f"{at}.type", "a string")
        else:
            raise no_counterpart(at)
    message: dict[str, Any] = {"role": "assistant", "content": said(parts) if parts else None if calls else ""}
    if thoughts and reasoning_back:
        message.update(_reasoning(thoughts))
    elif thoughts:
        loss.drop(f"{_BLOCK}.thinking")
        loss.exact = False
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: dict[str, Any], field: str, loss: Loss) -> dict[str, Any]:
    only(block, _CALL, field)
    take_cache_control(block, _BLOCK, loss)
    if block.get("caller") not in (None, {"type": "direct"}):
        raise no_counterpart(f"{field}.caller")
    name = text_of(block.get("name"), f"{field}.name")
    arguments = _encode(object_of(block.get("input"), f"{field}.input")).decode()
    return {
        "id": text_of(block.get("id"), f"{field}.id"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _thought(block: dict[str, Any], field: str) -> dict[str, Any]:
    if block["type"] == "redacted_thinking":
        only(block, _REDACTED, field)
        return {"type": "redacted_thinking", "data": text_of(block.get("data"), f"{field}.data")}
    only(block, _THINKING, field)
    signature = block.get("signature")
    return {
        "type": "thinking",
        "thinking": text_of(block.get("thinking"), f"{field}.thinking"),
        "signature": "" if signature is None else text_of(signature, f"{field}.signature"),
    }


def _reasoning(thoughts: list[dict[str, Any]]) -> dict[str, Any]:
    """Thinking blocks as fields of a chat message. A single unsigned one is what a chat provider had told."""
    fields: dict[str, Any] = {"reasoning_content": "".join([thought.get("thinking", "") for thought in thoughts])}
    if len(thoughts) > 1 or thoughts[0].get("signature") != "":
        fields["thinking_blocks"] = thoughts
    return fields
