"""The input of a Responses request as the messages of a chat.

Items and messages differ in grain: reasoning, a message and calls that follow each other are one turn of the model,
which chat completions hold in one assistant message. Ids and states of items, and the annotations and log probabilities
of what the model said before, are bookkeeping that no model sees; they are not part of a chat.
"""

from collections.abc import Callable
from typing import Any

from watchllm.domain.errors import BadRequest
from watchllm.providers.translation import responses_reasoning
from watchllm.providers.translation.reading import Loss, list_of, text_of, wrong
from watchllm.providers.translation.responses_fields import an_object, member, no_counterpart


def messages(instructions: Any, given: Any, loss: Loss) -> list[dict[str, Any]]:
    """The messages for the fields `instructions` and `input`, as a user of chat completions would write them.

    Raises BadRequest, naming the item and field, for what has no counterpart or a wrong type.
    """
    chat = _Chat(loss)
    if instructions is not None and text_of(instructions, "instructions"):
        chat.messages.append({"role": "system", "content": instructions})
    if type(given) is str:
        chat.messages.append({"role": "user", "content": given})
        return chat.messages
    if given is None or given == []:
        raise BadRequest("`input` is missing; it is the question as a string, or a list of items.", param="input")
    for number, item in enumerate(list_of(given, "input")):
        chat.take(item, f"input[{number}]")
    chat.leave_reasoning()
    return chat.messages


_PartTranslator = Callable[[dict[str, Any], str], dict[str, Any]]


class _Chat:
    """The chat so far, and reasoning that waits for the assistant's message that it led to."""

    def __init__(self, loss: Loss) -> None:
        self.messages: list[dict[str, Any]] = []
        self._losses = loss
        self._reasoning: dict[str, Any] = {}
        self._reasoning_path = ""

    def take(self, item: Any, path: str) -> None:
        fields = an_object(item, path)
        kind = text_of(fields.get("type", "message" if "role" in fields else "item_reference"), f"{path}.type")
        known = _ITEM_FIELDS.get(kind)
        if known is None:
            raise no_counterpart(path)
        an_object(fields, path, known)
        _TAKERS[kind](self, fields, path)

    def take_message(self, item: dict[str, Any], path: str) -> None:
        role = text_of(member(item, "role", path), f"{path}.role")
        content, at = member(item, "content", path), f"{path}.content"
        if role == "assistant":
            if "phase" in item:
                self._losses.drop(f"{path}.phase", shapes_answer=True)
            self._take_answer(content, at)
            return
        self.leave_reasoning()
        if role == "user":
            self.messages.append({"role": role, "content": _content(content, at, _USER_PARTS, self._losses)})
        elif role in ("system", "developer"):
            self.messages.append({"role": role, "content": _content(content, at, _TEXT_PARTS, self._losses)})
        else:
            raise wrong(f"{path}.role", "user, assistant, system or developer")

    def _take_answer(self, content: Any, path: str) -> None:
        said = _said(content, path, self._losses)
        last = self._last_turn()
        if last is None or "tool_calls" not in last:
            self.messages.append({"role": "assistant"} | said | self._reasoning)
            self._reasoning = {}
            return
        # Results have to follow calls at once, so what was said after a call is told before it.
        self._losses.exact = False
        self._join_reasoning(last)
        earlier, later = _as_parts(last), _as_parts(said)
        last.pop("refusal", None)
        last["content"] = said["content"] if not earlier and "refusal" not in said else earlier + later

    def take_call(self, item: dict[str, Any], path: str) -> None:
        custom = item["type"] == "custom_tool_call"
        holder, field = ("custom", "input") if custom else ("function", "arguments")
        call = {name: text_of(member(item, name, path), f"{path}.{name}") for name in ("call_id", "name", field)}
        turn = self._last_turn()
        if turn is None:
            turn = {"role": "assistant", "content": None}
            self.messages.append(turn)
        self._join_reasoning(turn)
        called = {"id": call["call_id"], "type": holder, holder: {"name": call["name"], field: call[field]}}
        turn.setdefault("tool_calls", []).append(called)

    def take_result(self, item: dict[str, Any], path: str) -> None:
        self.leave_reasoning()
        call_id = text_of(member(item, "call_id", path), f"{path}.call_id")
        content = _content(member(item, "output", path), f"{path}.output", _TEXT_PARTS, self._losses)
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def take_reasoning(self, item: dict[str, Any], path: str) -> None:
        texts: dict[str, list[str]] = {}
        for field in ("content", "summary"):
            parts = enumerate(list_of(item.get(field, []), f"{path}.{field}"))
            texts[field] = [_reasoning_text(part, f"{path}.{field}[{number}]") for number, part in parts]
        reasoning: dict[str, Any] = {}
        written = "\n\n".join(texts["content"] or texts["summary"])
        if written:
            reasoning["reasoning_content"] = written
        if "encrypted_content" in item:
            blocks = responses_reasoning.unpack(text_of(item["encrypted_content"], f"{path}.encrypted_content"))
            if blocks is None:
                self._losses.drop(f"{path}.encrypted_content", shapes_answer=True)
            else:
                reasoning["thinking_blocks"] = blocks
        if reasoning:
            # What a provider takes reasoning back for, and whether at all, differs between the dialects.
            self._losses.exact = False
            self._reasoning = _joined(self._reasoning, reasoning)
            self._reasoning_path = path

    def leave_reasoning(self) -> None:
        """Reasoning that no answer followed has no place in a chat."""
        if self._reasoning:
            self._losses.drop(self._reasoning_path, shapes_answer=True)
            self._reasoning = {}

    def _last_turn(self) -> dict[str, Any] | None:
        """The assistant's message at the end, if there is one: results and questions end its turn."""
        if self.messages and self.messages[-1]["role"] == "assistant":
            return self.messages[-1]
        return None

    def _join_reasoning(self, turn: dict[str, Any]) -> None:
        turn.update(_joined(turn, self._reasoning))
        self._reasoning = {}


def _joined(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The reasoning of two items, or of a message and an item that goes on."""
    joined: dict[str, Any] = {}
    texts = [held["reasoning_content"] for held in (earlier, later) if "reasoning_content" in held]
    if texts:
        joined["reasoning_content"] = "\n\n".join(texts)
    blocks = [block for held in (earlier, later) for block in held.get("thinking_blocks", ())]
    if blocks:
        joined["thinking_blocks"] = blocks
    return joined


def _reasoning_text(part: Any, path: str) -> str:
    return text_of(member(an_object(part, path, ("type", "text")), "text", path), f"{path}.text")


def _content(content: Any, path: str, kinds: dict[str, _PartTranslator], loss: Loss) -> Any:
    """Plain text, also for a single part of text, else a list of parts."""
    if type(content) is str:
        return content
    parts = []
    for number, part in enumerate(list_of(content, path)):
        at = f"{path}[{number}]"
        fields = an_object(part, at)
        if fields.pop("prompt_cache_breakpoint", None) is not None:
            loss.drop(f"{at}.prompt_cache_breakpoint")
        translate = kinds.get(text_of(member(fields, "type", at), f"{at}.type"))
        if translate is None:
            raise no_counterpart(at)
        parts.append(translate(fields, at))
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _said(content: Any, path: str, loss: Loss) -> dict[str, Any]:
    """The fields `content` and `refusal` of an assistant's message."""
    told = _content(content, path, _ANSWER_PARTS, loss)
    if type(told) is list and len(told) == 1:
        return {"content": None, "refusal": told[0]["refusal"]}
    return {"content": told}


def _as_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    parts = content if type(content) is list else [{"type": "text", "text": content}] if content else []
    return parts + ([{"type": "refusal", "refusal": message["refusal"]}] if "refusal" in message else [])


def _text(part: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(part, path, ("type", "text", "annotations", "logprobs"))
    return {"type": "text", "text": text_of(member(part, "text", path), f"{path}.text")}


def _refusal(part: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(part, path, ("type", "refusal"))
    return {"type": "refusal", "refusal": text_of(member(part, "refusal", path), f"{path}.refusal")}


def _image(part: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(part, path, ("type", "image_url", "detail"))
    image = {"url": text_of(member(part, "image_url", path), f"{path}.image_url")}
    detail = text_of(part.get("detail", "auto"), f"{path}.detail")
    return {"type": "image_url", "image_url": image if detail == "auto" else image | {"detail": detail}}


def _file(part: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(part, path, ("type", "file_data", "filename", "file_id", "detail"))
    if part.get("detail", "auto") != "auto":
        raise no_counterpart(f"{path}.detail")
    held = {
        field: text_of(part[field], f"{path}.{field}")
        for field in ("file_data", "file_id", "filename")
        if field in part
    }
    if "file_data" not in held and "file_id" not in held:
        raise BadRequest(f"`{path}.file_data` is missing.", param=f"{path}.file_data")
    return {"type": "file", "file": held}


def _audio(part: dict[str, Any], path: str) -> dict[str, Any]:
    an_object(part, path, ("type", "input_audio"))
    at = f"{path}.input_audio"
    audio = an_object(member(part, "input_audio", path), at, ("data", "format"))
    return {
        "type": "input_audio",
        "input_audio": {name: text_of(value, f"{at}.{name}") for name, value in audio.items()},
    }


_TEXT_PARTS: dict[str, _PartTranslator] = {"input_text": _text}
_USER_PARTS = _TEXT_PARTS | {"input_image": _image, "input_file": _file, "input_audio": _audio}
_ANSWER_PARTS: dict[str, _PartTranslator] = {"output_text": _text, "input_text": _text, "refusal": _refusal}

_CALL = ("type", "id", "status", "call_id", "name")
_RESULT = ("type", "id", "status", "call_id", "output")
_ITEM_FIELDS: dict[str, tuple[str, ...]] = {
    "message": ("type", "id", "status", "role", "content", "phase"),
    "function_call": (*_CALL, "arguments"),
    "custom_tool_call": (*_CALL, "input"),
    "function_call_output": (*_RESULT, "name"),
    "custom_tool_call_output": _RESULT,
    "reasoning": ("type", "id", "status", "summary", "content", "encrypted_content"),
}
_TAKERS: dict[str, Callable[[_Chat, dict[str, Any], str], None]] = {
    "message": _Chat.take_message,
    "function_call": _Chat.take_call,
    "custom_tool_call": _Chat.take_call,
    "function_call_output": _Chat.take_result,
    "custom_tool_call_output": _Chat.take_result,
    "reasoning": _Chat.take_reasoning,
}
