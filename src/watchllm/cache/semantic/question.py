"""What of a request is compared by meaning: the text of its last user message; all the rest is its context.

The context is hashed as the exact key is, by the same canonical form and with the same parts, so that whatever sets two
requests apart in the exact cache sets them apart here too, but for that one text.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

HOLD_TEXT: Final = ("messages", "input", "prompt")
"""Of chat and Anthropic's messages, of OpenAI's responses, of completions; who names two is asking for trouble."""
_TEXTS = ("text", "input_text")
# The place of the text in the context. No text stands there, so that none can be written that passes for it.
_LEFT_OUT = None


class Parted(NamedTuple):
    """`context` is the document without `text`."""

    context: dict[str, Any]
    text: str


class NotTried(NamedTuple):
    """`reason` says in a word why such a request is only looked up exactly."""

    reason: str


def parted(document: dict[str, Any]) -> Parted | NotTried:
    """Take the text that is compared out of a request, in the words of any dialect. Raises nothing."""
    for field in ("n", "best_of"):
        count = document.get(field)
        if count is not None and (type(count) is not int or count != 1):
            return NotTried("choices")
    if document.get("modalities") not in (None, ["text"]) or document.get("audio") is not None:
        return NotTried("audio")
    fields = [field for field in HOLD_TEXT if field in document]
    if len(fields) != 1:
        return NotTried("no_text")
    found = _last(document[fields[0]])
    if isinstance(found, NotTried):
        return found
    rest, text = found
    if not text or text.isspace():
        return NotTried("blank")
    return Parted({**document, fields[0]: rest}, text)


def _last(given: Any) -> tuple[Any, str] | NotTried:
    """A prompt, or the last of several messages: what is left without its text, and the text."""
    if type(given) is str:
        return _LEFT_OUT, given
    if type(given) is not list or not given:
        return NotTried("no_text")
    last = given[-1]
    if type(last) is str:
        return (_LEFT_OUT, last) if len(given) == 1 else NotTried("choices")
    if type(last) is not dict:
        return NotTried("no_text")
    if last.get("role") != "user":
        return NotTried("tool_result" if _is_tool_result(last) else "not_user")
    text = _text(last.get("content"))
    if isinstance(text, NotTried):
        return text
    return [*given[:-1], {**last, "content": _LEFT_OUT}], text


def _is_tool_result(message: dict[str, Any]) -> bool:
    return message.get("role") in ("tool", "function") or str(message.get("type", "")).endswith("_output")


def _text(content: Any) -> str | NotTried:
    if type(content) is str:
        return content
    if type(content) is not list or not content:
        return NotTried("no_text")
    texts = []
    for part in content:
        kind = part.get("type") if type(part) is dict else None
        if kind == "tool_result":
            return NotTried("tool_result")
        if type(kind) is not str or kind not in _TEXTS:
            return NotTried("media")
        if len(part) != 2 or type(part.get("text")) is not str:
            return NotTried("media")  # What else a part may say (a cache point, citations) is not compared.
        texts.append(part["text"])
    return "\n".join(texts)
