"""A chat's messages as the instructions and input items of a Responses request."""

from collections.abc import Callable
from typing import Any

from watchllm.providers.translation.reading import Loss, list_of, object_of, refusal, refuse_others, text_of

DIALECT = "OpenAI's Responses"

Items = list[dict[str, Any]]

# Hints for a provider's prompt cache, which have to do with its price only.
_HINTS = ("cache_control", "prompt_cache_breakpoint")
# A chat's reasoning has no signature that a provider of Responses would know again.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking_blocks")
# What answers hold beside what the model said, and official clients send back as it came.
_SAID_BESIDE = ("annotations", "citations")


def translate_turns(messages: Any, loss: Loss) -> tuple[str | None, str | Items]:
    """The instructions, None when there are none, and the input: a lone question is a string.

    Raises BadRequest, naming the message and field, for what has no counterpart or a wrong type.
    """
    turns = _Turns(loss)
    for number, message in enumerate(list_of(messages, "messages")):
        where = f"messages[{number}]"
        turns.take(drop_hints(object_of(message, where), where, loss), where)
    items = turns.items
    if not items:
        if turns.instructions is None:
            raise refusal("messages", "must hold a message.")
        return None, [{"role": "system", "content": turns.instructions}]
    if len(items) == 1 and items[0].get("role") == "user" and type(items[0]["content"]) is str:
        return turns.instructions, items[0]["content"]
    return turns.instructions, items


def drop_hints(holder: dict[str, Any], where: str, loss: Loss) -> dict[str, Any]:
    """`holder` without its hints for a prompt cache."""
    if holder.keys().isdisjoint(_HINTS):
        return holder
    for hint in _HINTS:
        if holder.get(hint) is not None:
            loss.drop(f"{where}.{hint}")
    return {name: value for name, value in holder.items() if name not in _HINTS}


class _Turns:
    """The input so far. The kind of a tool's result is that of its call."""

    def __init__(self, loss: Loss) -> None:
        self.instructions: str | None = None
        self.items: Items = []
        self._loss = loss
        self._custom_calls: set[str] = set()

    def take(self, message: dict[str, Any], where: str) -> None:
        role = message.get("role")
        if role == "assistant":
            self._take_answer(message, where)
        elif role == "tool":
            self._take_result(message, where)
        elif role in ("system", "developer", "user"):
            refuse_others(message, ("role", "content"), where, DIALECT)
            content = self._content(message.get("content"), f"{where}.content", _USER if role == "user" else _TEXT)
            if role == "system" and content and type(content) is str and not self.items and self.instructions is None:
                self.instructions = content
            else:
                self.items.append({"role": role, "content": content})
        else:
            raise refusal(f"{where}.role", "must be `system`, `developer`, `user`, `assistant` or `tool`.")

    def _take_answer(self, message: dict[str, Any], where: str) -> None:
        refuse_others(message, _ASSISTANT, where, DIALECT)
        for field in (*_THOUGHTS, *_SAID_BESIDE):
            if message.get(field):
                self._loss.drop(f"{where}.{field}")
                self._loss.blur()
        calls = message.get("tool_calls")
        said = self._said(message, where)
        if said:
            self.items.append({"type": "message", "role": "assistant", "content": said})
        elif not calls:
            if message.get("content") is None:
                raise refusal(f"{where}.content", "is missing: an assistant's message has content or `tool_calls`.")
            self.items.append({"type": "message", "role": "assistant", "content": ""})
        for number, call in enumerate([] if calls is None else list_of(calls, f"{where}.tool_calls")):
            self._take_call(call, f"{where}.tool_calls[{number}]")

    def _said(self, message: dict[str, Any], where: str) -> Any:
        """The content of an answer; empty when there were only calls."""
        content = message.get("content")
        said = None if content is None else self._content(content, f"{where}.content", _ANSWER)
        refused = message.get("refusal")
        if refused is None or not text_of(refused, f"{where}.refusal"):
            return said
        parts = [{"type": "output_text", "text": said}] if said and type(said) is str else said or []
        return [*parts, {"type": "refusal", "refusal": refused}]

    def _take_call(self, call: Any, where: str) -> None:
        kind: Any = object_of(call, where).get("type", "function")
        if kind not in ("function", "custom"):
            raise refusal(f"{where}.type", "must be `function` or `custom`.")
        refuse_others(call, ("id", "type", "index", kind), where, DIALECT)
        field = "input" if kind == "custom" else "arguments"
        at = f"{where}.{kind}"
        inner = object_of(call.get(kind), at)
        refuse_others(inner, ("name", field), at, DIALECT)
        call_id = text_of(call.get("id"), f"{where}.id")
        if kind == "custom":
            self._custom_calls.add(call_id)
        item = {"type": "custom_tool_call" if kind == "custom" else "function_call", "call_id": call_id}
        self.items.append(item | {name: text_of(inner.get(name), f"{at}.{name}") for name in ("name", field)})

    def _take_result(self, message: dict[str, Any], where: str) -> None:
        refuse_others(message, ("role", "content", "tool_call_id", "name"), where, DIALECT)
        if message.get("name") is not None:
            # Which tool it was, the call says.
            text_of(message["name"], f"{where}.name")
        call_id = text_of(message.get("tool_call_id"), f"{where}.tool_call_id")
        kind = "custom_tool_call_output" if call_id in self._custom_calls else "function_call_output"
        output = self._content(message.get("content"), f"{where}.content", _TEXT)
        self.items.append({"type": kind, "call_id": call_id, "output": output})

    def _content(self, content: Any, field: str, kinds: "_Kinds") -> str | Items:
        """Plain text, also for a single part of text, else the parts."""
        if type(content) is str:
            return content
        if type(content) is not list:
            raise refusal(field, "must be a string or an array of parts.")
        parts = [self._part(part, f"{field}[{number}]", kinds) for number, part in enumerate(content)]
        if len(parts) == 1 and "text" in parts[0]:
            return str(parts[0]["text"])
        return parts

    def _part(self, given: Any, where: str, kinds: "_Kinds") -> dict[str, Any]:
        part = drop_hints(object_of(given, where), where, self._loss)
        kind: Any = part.get("type")
        make = kinds.get(kind) if type(kind) is str else None
        if make is None:
            raise refusal(f"{where}.type", f"must be {' or '.join(f'`{name}`' for name in kinds)} here.")
        refuse_others(part, ("type", kind), where, DIALECT)
        return make(part.get(kind), f"{where}.{kind}")


_Kinds = dict[str, Callable[[Any, str], dict[str, Any]]]


def _text(text: Any, where: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text_of(text, where)}


def _answered(text: Any, where: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text_of(text, where)}


def _refusal(text: Any, where: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text_of(text, where)}


def _image(given: Any, where: str) -> dict[str, Any]:
    image = object_of(given, where)
    refuse_others(image, ("url", "detail"), where, DIALECT)
    detail = image.get("detail")
    return {
        "type": "input_image",
        "image_url": text_of(image.get("url"), f"{where}.url"),
        "detail": "auto" if detail is None else text_of(detail, f"{where}.detail"),
    }


def _file(given: Any, where: str) -> dict[str, Any]:
    file = object_of(given, where)
    fields = ("file_data", "file_id", "filename")
    refuse_others(file, fields, where, DIALECT)
    held = {name: text_of(file[name], f"{where}.{name}") for name in fields if file.get(name) is not None}
    if "file_data" not in held and "file_id" not in held:
        raise refusal(f"{where}.file_data", "is missing.")
    return {"type": "input_file"} | held


def _audio(given: Any, where: str) -> dict[str, Any]:
    audio = object_of(given, where)
    fields = ("data", "format")
    refuse_others(audio, fields, where, DIALECT)
    return {
        "type": "input_audio",
        "input_audio": {name: text_of(audio.get(name), f"{where}.{name}") for name in fields},
    }


_TEXT: _Kinds = {"text": _text}
_USER: _Kinds = {"text": _text, "image_url": _image, "file": _file, "input_audio": _audio}
_ANSWER: _Kinds = {"text": _answered, "refusal": _refusal}
_ASSISTANT = frozenset(("role", "content", "refusal", "tool_calls", *_THOUGHTS, *_SAID_BESIDE))
