"""A chat's messages as Anthropic's system prompt and turns."""

from typing import Any

from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, WireRefusal
from watchllm.providers.translation.media_chat_to_messages import DIALECT, cache_hint, content_blocks
from watchllm.providers.translation.reading import Loss, list_of, object_of, refusal, refuse_others, text_of

Blocks = list[dict[str, Any]]

_HINTS = ("cache_control", "prompt_cache_breakpoint")
_ASSISTANT = frozenset(
    ("role", "content", "tool_calls", "refusal", "thinking_blocks", *_HINTS, "reasoning_content", "reasoning")
)
# What answers hold beside these, and official clients send back as it came: it is not what the model said.
_SAID_BESIDE = ("annotations", "citations")


def translate_turns(messages: Any, loss: Loss) -> tuple[str | Blocks | None, list[dict[str, Any]]]:
    """The system prompt, None when there is none, and the turns.

    System messages further down are moved to the others at the top: where Anthropic takes them in between depends on
    the model. Tool results go to the front of the user's turn that follows them. Raises BadRequest.
    """
    system: Blocks = []
    turns: list[dict[str, Any]] = []
    results: Blocks = []
    for number, message in enumerate(list_of(messages, "messages")):
        where = f"messages[{number}]"
        role = object_of(message, where).get("role")
        if role == "system" or role == "developer":
            if turns or results:
                loss.blur()
            system += _system(message, where, loss)
        elif role == "tool":
            results.append(_tool_result(message, where, loss))
        elif role == "user":
            turns.append({"role": "user", "content": _user(message, where, results, loss)})
            results = []
        elif role == "assistant":
            if results:
                turns.append({"role": "user", "content": results})
                results = []
            turns.append({"role": "assistant", "content": _assistant(message, where, loss)})
        else:
            raise refusal(f"{where}.role", "must be `system`, `developer`, `user`, `assistant` or `tool`.")
    if results:
        turns.append({"role": "user", "content": results})
    if not turns:
        raise refusal("messages", "must hold a message of the user.")
    return _plain(system) if system else None, turns


def _plain(blocks: Blocks) -> str | Blocks:
    """A single text with nothing to it is a string: Anthropic says that both mean the same."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _blocks(message: dict[str, Any], where: str, loss: Loss, *, only_text: bool = False) -> Blocks:
    content = message.get("content")
    hint = cache_hint(message, where, loss)
    if type(content) is str:
        blocks: Blocks = [{"type": "text", "text": content}]
    elif type(content) is list:
        blocks = content_blocks(content, f"{where}.content", loss, only_text=only_text)
    else:
        raise refusal(f"{where}.content", "must be a string or an array of parts.")
    if hint and blocks:
        blocks[-1] |= hint
    return blocks


def _system(message: dict[str, Any], where: str, loss: Loss) -> Blocks:
    refuse_others(message, ("role", "content", *_HINTS), where, DIALECT)
    # Anthropic refuses empty texts, and an empty instruction instructs nobody.
    return [block for block in _blocks(message, where, loss, only_text=True) if block["text"]]


def _user(message: dict[str, Any], where: str, results: Blocks, loss: Loss) -> str | Blocks:
    refuse_others(message, ("role", "content", *_HINTS), where, DIALECT)
    blocks = _blocks(message, where, loss)
    return [*results, *blocks] if results else _plain(blocks)


def _tool_result(message: dict[str, Any], where: str, loss: Loss) -> dict[str, Any]:
    refuse_others(message, ("role", "content", "tool_call_id", "name", *_HINTS), where, DIALECT)
    if message.get("name") is not None:
        # Which tool it was, the call says.
        text_of(message["name"], f"{where}.name")
    hint = cache_hint(message, where, loss)
    unhinted = {name: value for name, value in message.items() if name not in _HINTS}
    content = _plain(_blocks(unhinted, where, loss))
    call = text_of(message.get("tool_call_id"), f"{where}.tool_call_id")
    return {"type": "tool_result", "tool_use_id": call, "content": content} | hint


def _assistant(message: dict[str, Any], where: str, loss: Loss) -> str | Blocks:
    refuse_others(message, (*_ASSISTANT, *_SAID_BESIDE), where, DIALECT)
    for field in _SAID_BESIDE:
        if message.get(field):
            loss.drop(f"{where}.{field}")
            loss.blur()
    thoughts = _thoughts(message, where, loss)
    said = _said(message, where, loss)
    calls = _tool_uses(message.get("tool_calls"), f"{where}.tool_calls")
    if calls:
        # Beside a call, an empty text is what other providers write for none.
        said = [block for block in said if block.get("text") != ""]
    elif not said:
        raise refusal(f"{where}.content", "is missing: an assistant's message has content or `tool_calls`.")
    return _plain([*thoughts, *said, *calls])


def _thoughts(message: dict[str, Any], where: str, loss: Loss) -> Blocks:
    given = message.get("thinking_blocks")
    blocks = [] if given is None else list_of(given, f"{where}.thinking_blocks")
    if not blocks:
        for field in ("reasoning_content", "reasoning"):
            if message.get(field):
                # Without their signatures Anthropic takes no thoughts back.
                loss.drop(f"{where}.{field}")
                loss.blur()
    return [_thought(block, f"{where}.thinking_blocks[{number}]") for number, block in enumerate(blocks)]


def _thought(block: Any, where: str) -> dict[str, Any]:
    kind = object_of(block, where).get("type")
    fields = _THOUGHTS.get(kind) if type(kind) is str else None
    if fields is None:
        raise refusal(f"{where}.type", "must be `thinking` or `redacted_thinking`.")
    # `index` is how streamed blocks are told apart.
    refuse_others(block, ("type", "index", *fields), where, DIALECT)
    return {"type": kind} | {field: text_of(block.get(field), f"{where}.{field}") for field in fields}


_THOUGHTS = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def _said(message: dict[str, Any], where: str, loss: Loss) -> Blocks:
    content = message.get("content")
    parts = content if type(content) is list else []
    blocks: Blocks = []
    if content is not None:
        turned = [_refusal_as_text(part, f"{where}.content[{at}]", loss) for at, part in enumerate(parts)]
        blocks = _blocks({**message, "content": turned} if parts else message, where, loss, only_text=True)
    refused = message.get("refusal")
    if refused is not None and text_of(refused, f"{where}.refusal"):
        loss.blur()
        blocks.append({"type": "text", "text": refused})
    return blocks


def _refusal_as_text(part: Any, where: str, loss: Loss) -> Any:
    if type(part) is not dict or part.get("type") != "refusal":
        return part
    loss.blur()
    return {"type": "text", "text": text_of(part.get("refusal"), f"{where}.refusal")}


def _tool_uses(calls: Any, field: str) -> Blocks:
    if calls is None:
        return []
    return [_tool_use(call, f"{field}[{number}]") for number, call in enumerate(list_of(calls, field))]


def _tool_use(call: Any, where: str) -> dict[str, Any]:
    if object_of(call, where).get("type", "function") != "function":
        raise refusal(f"{where}.type", f"must be `function`: {DIALECT} know no other tools of the client's.")
    refuse_others(call, ("id", "type", "function", "index"), where, DIALECT)
    function = object_of(call.get("function"), f"{where}.function")
    refuse_others(function, ("name", "arguments"), f"{where}.function", DIALECT)
    return {
        "type": "tool_use",
        "id": text_of(call.get("id"), f"{where}.id"),
        "name": text_of(function.get("name"), f"{where}.function.name"),
        "input": _arguments(function.get("arguments"), f"{where}.function.arguments"),
    }


def _arguments(written: Any, field: str) -> dict[str, Any]:
    if not text_of(written, field).strip():
        return {}
    try:
        return json_body.parse(written.encode())
    except (BadRequest, WireRefusal):
        raise refusal(field, "must be a JSON object in a string: Anthropic takes the input of a tool as one.") from None
