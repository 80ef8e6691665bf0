"""A whole chat completion as a message of the Messages API."""

from typing import Any

import msgspec

from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.translation.messages_outcome import (
    STOP_REASONS,
    CallIds,
    citations,
    message_usage,
    stop,
    stop_sequence,
)


def translate(body: bytes) -> TranslatedAnswer:
    """The message that says what the chat completion `body` says.

    Raises Untranslatable for what is no complete answer, or holds what a message has no form for.
    """
    answer = _read(body)
    choice = _only_choice(answer)
    finish = choice.get("finish_reason")
    if type(finish) is not str or finish not in STOP_REASONS:
        raise Untranslatable(f"finish_reason {_excerpt(finish)}")
    message = choice.get("message")
    if type(message) is not dict:
        raise Untranslatable("no message")
    for field in _WITHOUT_FORM:
        if message.get(field):
            raise Untranslatable(f"{field} in the message")
    content = thinking_blocks(message) + _text_blocks(message)
    calls, whole = _tool_blocks(message.get("tool_calls"), answer.get("id"), cut=finish == "length")
    refusal = message.get("refusal")
    refused = type(refusal) is str and refusal != ""
    told = {
        "id": _text(answer.get("id")),
        "type": "message",
        "role": "assistant",
        "model": _text(answer.get("model")),
        "content": content + calls,
        **stop(finish, stop_sequence(choice), calls=bool(calls), refused=refused),
        "usage": message_usage(answer.get("usage")),
    }
    exact = whole and not choice.get("logprobs") and not message.get("annotations") and not says_more(message)
    try:
        return TranslatedAnswer(_encode(told), exact)
    except RecursionError:
        raise Untranslatable("nested too deep") from None


def thinking_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The reasoning of a chat message: signed blocks where a Messages provider's came through, else the plain text."""
    blocks = []
    signed = message.get("thinking_blocks")
    for block in signed if type(signed) is list else ():
        if type(block) is not dict:
            continue
        thought, signature, data = block.get("thinking"), block.get("signature"), block.get("data")
        if block.get("type") == "thinking" and type(thought) is str:
            blocks.append(_thinking(thought, signature if type(signature) is str else ""))
        elif block.get("type") == "redacted_thinking" and type(data) is str:
            blocks.append({"type": "redacted_thinking", "data": data})
    if blocks:
        return blocks
    for field in ("reasoning_content", "reasoning"):
        thought = message.get(field)
        if type(thought) is str and thought:
            return [_thinking(thought, "")]
    return [_thinking(thought, "") for kind, thought in text_parts(message.get("content")) if kind == "thinking"]


def text_parts(content: Any) -> list[tuple[str, str]]:
    """The content of a message or delta as `text` and `thinking` pieces. Raises Untranslatable for any other.

    Vendors write it as a text or as parts; Mistral's thinking is a part that holds texts.
    """
    if content is None or content == "":
        return []
    if type(content) is str:
        return [("text", content)]
    if type(content) is not list:
        raise Untranslatable("content of an unknown kind")
    pieces = []
    for part in content:
        kind = part.get("type") if type(part) is dict else None
        if kind in ("text", "refusal") and type(part.get(kind)) is str:
            pieces.append(("text", part[kind]))
        elif kind == "thinking":
            pieces.append(("thinking", _thought_of(part.get("thinking"))))
        else:
            raise Untranslatable("content of an unknown kind")
    return pieces


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_WITHOUT_FORM = ("audio", "images", "function_call")
_KNOWN = frozenset(
    (
        "role",
        "content",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking_blocks",
        "tool_calls",
        "annotations",
        "citations",
    )
)


def _read(body: bytes) -> dict[str, Any]:
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Untranslatable("not JSON") from None
    except RecursionError:
        raise Untranslatable("nested too deep") from None
    if type(answer) is not dict:
        raise Untranslatable("not an object")
    if answer.get("error"):
        raise Untranslatable("an error")
    return answer


def _only_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if type(choices) is not list or not choices:
        raise Untranslatable("no choices")
    if len(choices) > 1:
        raise Untranslatable(f"{len(choices)} choices")
    choice = choices[0]
    if type(choice) is not dict:
        raise Untranslatable("no choices")
    if choice.get("error"):
        raise Untranslatable("an error")
    return choice


def _text_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    texts = [text for kind, text in text_parts(message.get("content")) if kind == "text"]
    refusal = message.get("refusal")
    if type(refusal) is str:
        texts.append(refusal)
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts if text]
    cited = citations(message)
    if cited and blocks:
        blocks[0]["citations"] = cited
    return blocks


def _tool_blocks(calls: Any, answer_id: Any, *, cut: bool) -> tuple[list[dict[str, Any]], bool]:
    """The calls as blocks, and whether these are all: of an answer `cut` at its length the last call may be torn."""
    if calls is None:
        return [], True
    if type(calls) is not list:
        raise Untranslatable("malformed tool calls")
    ids = CallIds(answer_id)
    blocks: list[dict[str, Any]] = []
    for number, call in enumerate(calls):
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or type(function.get("name")) is not str:
            raise Untranslatable("malformed tool calls")
        arguments = _arguments(function.get("arguments"))
        if arguments is None:
            if cut and number == len(calls) - 1:
                return blocks, False
            raise Untranslatable("arguments of a tool call that are not a JSON object")
        blocks.append(
            {"type": "tool_use", "id": ids.next(call.get("id")), "name": function["name"], "input": arguments}
        )
    return blocks, True


def _arguments(written: Any) -> dict[str, Any] | None:
    """The input of a call; none at all is an empty one. Some vendors write the object itself."""
    if written is None or written == "":
        return {}
    if type(written) is str:
        try:
            written = _decode(written)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    return written if type(written) is dict else None


def _thinking(thought: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": thought, "signature": signature}


def _thought_of(held: Any) -> str:
    if type(held) is str:
        return held
    if type(held) is not list:
        raise Untranslatable("content of an unknown kind")
    texts = [part.get("text") if type(part) is dict else None for part in held]
    return "".join([text for text in texts if type(text) is str])


def says_more(message: dict[str, Any]) -> bool:
    """Whether a message, or a delta of one, has fields of a vendor's own."""
    return any(message[field] for field in message.keys() - _KNOWN)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _excerpt(value: Any) -> str:
    return value[:60] if type(value) is str else "is missing"
