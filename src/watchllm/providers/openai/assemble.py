"""Puts the chunks of a stream together into the answer that the same request would have got without `stream`.

How the pieces of a choice are joined, by the kind of field:

| field | joined by |
|---|---|
| `content`, `text`, `refusal`, `reasoning_content`, `arguments` and every other text | appending |
| `role`, `id`, `type`, `name`, `index`, `format` | keeping the first: some vendors repeat them in each chunk |
| objects (`function`…) | joining their fields by these rules |
| `tool_calls` and other lists whose items carry an `index` | joining the items of one index |
| other lists, `logprobs` | appending |
| numbers, booleans, `finish_reason`, unknown fields of choice or chunk | the last that is not null |
| `id`, `created`, `model`, `system_fingerprint`, `service_tier` of the chunk | the first that is not empty |

These are the rules of OpenAI's own client for deltas, except where vendors are known to repeat a field. Streamed audio
cannot be put together (each piece is encoded by itself), so such a stream has no result.
"""

from io import StringIO
from typing import Any

import msgspec

from watchllm.domain.usage import TokenUsage
from watchllm.providers.doubled import Ends, Pairs
from watchllm.providers.openai.usage import text_of, token_usage

MAX_BYTES = 4 * 1024 * 1024
"""Default bound of what one assembly keeps, in characters of text (structure is charged by its size on the wire)."""


class StreamAssembler:
    """Reads one stream along. Feed it the data of each event; ask for `result` at the end.

    `family` is `generate` (chat) or `completions`, `choices` the number of choices asked for. Beyond `limit` the text
    is forgotten and there will be no result, but usage and finish reasons are still read.
    """

    __slots__ = (
        "_charged",
        "_choices",
        "_family",
        "_head",
        "_limit",
        "_settled",
        "_usage",
        "_wanted",
        "done",
        "error",
        "failure",
        "text_length",
    )

    def __init__(self, family: str, *, choices: int = 1, limit: int = MAX_BYTES) -> None:
        self._family = family
        self._wanted = choices
        self._limit = limit
        self._charged = 0
        self._choices: dict[int, _Choice] = {}
        self._head: dict[str, Any] = {}
        self._settled = set(_NOT_IN_HEAD)
        self._usage: Any = None
        self.done = False
        """Whether `[DONE]` came."""
        self.error: Any = None
        """The error object that came in the stream, if one did."""
        self.failure: str | None = None
        """Why there will be no result whatever comes: the stream cannot be read, or is too large."""
        self.text_length = 0
        """Characters of text seen so far, to estimate the tokens of a stream that was cut."""

    @property
    def usage(self) -> TokenUsage | None:
        """The last usage that the stream reported."""
        return token_usage(self._usage, self._head.get("service_tier"))

    @property
    def text(self) -> str:
        """All text so far of all choices; empty once it was forgotten."""
        return text_of([[choice.text.getvalue(), _finished(choice.delta)] for choice in self._choices.values()])

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Of the choices that are finished, in their order."""
        return tuple(
            choice.finish_reason for _, choice in sorted(self._choices.items()) if choice.finish_reason is not None
        )

    @property
    def complete(self) -> bool:
        """Whether all choices came to their end and the stream to its own, without an error."""
        return (
            self.done
            and self.error is None
            and len(self._choices) >= self._wanted
            and all(choice.finish_reason is not None for choice in self._choices.values())
        )

    def feed(self, data: bytes) -> None:
        """Take the data of the next event in; about 2 µs. Raises nothing: see `failure` and `error`."""
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        try:
            self._take_chunk(_decode(data), data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._fail("an event is not JSON")
        except RecursionError:
            self._fail("an event is nested too deep")
        if self._charged > self._limit:
            self._fail("too large")

    def result(self) -> bytes | None:
        """The whole answer as JSON, or None when the stream was cut, failed, or could not be put together."""
        if not self.complete or self.failure is not None:
            return None
        if any(choice.pairs.doubled for choice in self._choices.values()):
            return None
        try:
            return _encode(self._answer())
        except RecursionError:
            return None

    def _answer(self) -> dict[str, Any]:
        head = dict(self._head)
        answer: dict[str, Any] = {
            "id": head.pop("id", ""),
            "object": "text_completion" if self._family == "completions" else "chat.completion",
            "created": head.pop("created", 0),
            "model": head.pop("model", ""),
            "choices": [
                choice.as_text(index) if self._family == "completions" else choice.as_message(index)
                for index, choice in sorted(self._choices.items())
            ],
        }
        if self._usage is not None:
            answer["usage"] = self._usage
        return answer | head

    def _take_chunk(self, chunk: Any, data: bytes) -> None:
        if type(chunk) is not dict:
            self._fail("an event is not an object")
            return
        if chunk.keys() - self._settled:
            self._take_head(chunk)
        error = chunk.get("error")
        if error:
            self.error = error
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = usage
        choices = chunk.get("choices")
        if type(choices) is list:
            for choice in choices:
                self._take_choice(choice, data)
        elif choices is not None:
            self._fail("choices is not a list")

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        for choice in self._choices.values():
            choice.forget()

    def _take_head(self, chunk: dict[str, Any]) -> None:
        for field in chunk.keys() - self._settled:
            value = chunk[field]
            if value is None:
                self._head.setdefault(field, None)
                continue
            self._head[field] = value
            if field in _FIRST_IN_HEAD and value:
                self._settled.add(field)
        groq = chunk.get("x_groq")
        if type(groq) is dict and "usage" in groq:
            # Groq reports usage in a field of its own, unasked; a whole answer has it in `usage` only.
            self._usage = groq["usage"] or self._usage
            self._head["x_groq"] = {field: value for field, value in groq.items() if field != "usage"}

    def _take_choice(self, piece: Any, data: bytes) -> None:
        index = piece.get("index", 0) if type(piece) is dict else None
        if type(index) is not int:
            self._fail("a choice has no index")
            return
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) >= _MAX_CHOICES:
                self._fail("too many choices")
                return
            choice = self._choices[index] = _Choice()
            self._charged += 256
        reason = piece.get("finish_reason")
        if reason:
            if choice.ends.finishes(data):
                self._fail("its events come twice")
            choice.finish_reason = reason if type(reason) is str else str(reason)
        delta = piece.get("delta")
        if type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str:
            text = delta["content"]
        else:
            text = piece.get("text")
            if type(delta) is dict and delta:
                if "role" in delta and not reason:
                    choice.ends.opens(delta)
                self._take_delta(choice, delta, len(data))
        if type(text) is str:
            self.text_length += len(text)
            if self.failure is None:
                choice.append(text)
                self._charged += len(text)
        if piece.keys() - _USUAL_IN_CHOICE and self.failure is None:
            choice.take_extras(piece)
            self._charged += len(data)
        logprobs = piece.get("logprobs", _MISSING)
        if logprobs is not _MISSING and self.failure is None:
            choice.take_logprobs(logprobs)
            if logprobs is not None:
                self._charged += 4 * len(data)

    def _take_delta(self, choice: "_Choice", delta: dict[str, Any], size: int) -> None:
        if delta.get("audio") is not None:
            self._fail("streamed audio")
        length = _length_of_text(delta)
        self.text_length += length
        if self.failure is not None:
            return
        content = delta.pop("content", _MISSING)
        if type(content) is str:
            choice.append(content)
        elif content is not _MISSING:
            delta["content"] = content
            if content is not None and choice.has_text:
                self._fail("content of two kinds")
                return
        if choice.pairs.open:
            choice.thinks(delta)
        if not _join(choice.delta, delta):
            self._fail("too many parts")
        # Text is charged by its length; what else a delta holds is small and rare, or pays by its size on the wire.
        self._charged += length + 64 if delta.keys() <= _LEAN_DELTAS else size


class _Choice:
    """One choice under way."""

    __slots__ = ("delta", "ends", "extras", "finish_reason", "has_logprobs", "has_text", "logprobs", "pairs", "text")

    def __init__(self) -> None:
        self.text = StringIO()
        self.has_text = False
        self.ends = Ends()
        self.pairs = Pairs()
        self.delta: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.logprobs: Any = None
        self.has_logprobs = False
        self.finish_reason: str | None = None

    def append(self, text: str) -> None:
        if self.pairs.open and text:
            self.pairs.take(text)
        self.text.write(text)
        self.has_text = True

    def thinks(self, delta: dict[str, Any]) -> None:
        """Watch the reasoning as the text is watched; vendors who tell it twice name it twice in one piece."""
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if type(thought) is str and thought:
            self.pairs.take(thought)

    def take_extras(self, piece: dict[str, Any]) -> None:
        for field in piece.keys() - _USUAL_IN_CHOICE:
            if piece[field] is not None or field not in self.extras:
                self.extras[field] = piece[field]

    def take_logprobs(self, logprobs: Any) -> None:
        self.has_logprobs = True
        if logprobs is None:
            return
        if type(logprobs) is not dict or type(self.logprobs) is not dict:
            self.logprobs = logprobs
            return
        for field, value in logprobs.items():
            held = self.logprobs.get(field)
            if type(held) is list and type(value) is list:
                held.extend(value)
            elif value is not None or field not in self.logprobs:
                self.logprobs[field] = value

    def forget(self) -> None:
        self.text = StringIO()
        self.delta = {}
        self.extras = {}
        self.logprobs = None

    def as_message(self, index: int) -> dict[str, Any]:
        delta = _finished(self.delta)
        message: dict[str, Any] = {"role": delta.pop("role", None) or "assistant", "content": None} | delta
        if self.has_text:
            message["content"] = self.text.getvalue()
        calls = message.get("tool_calls")
        if type(calls) is list:
            message["tool_calls"] = [_without_index(call) for call in sorted(calls, key=_index_of)]
        return {"index": index, "message": message} | self._end()

    def as_text(self, index: int) -> dict[str, Any]:
        return {"text": self.text.getvalue(), "index": index} | self._end()

    def _end(self) -> dict[str, Any]:
        logprobs = {"logprobs": self.logprobs} if self.has_logprobs else {}
        return logprobs | {"finish_reason": self.finish_reason} | self.extras


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_MISSING = object()
_MAX_CHOICES = 4096
_MAX_ITEMS = 4096

# `obfuscation` is padding against traffic analysis; it means nothing.
_NOT_IN_HEAD = frozenset(("choices", "usage", "object", "obfuscation", "error"))
_FIRST_IN_HEAD = frozenset(("id", "created", "model", "system_fingerprint", "service_tier"))
_USUAL_IN_CHOICE = frozenset(("index", "delta", "text", "finish_reason", "logprobs"))
_KEPT_FIRST = frozenset(("role", "id", "type", "name", "index", "format"))
_LEAN_DELTAS = frozenset(
    ("role", "content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call"),
)


def _join(held: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Join `delta` into `held`; texts that grow become StringIO. False when a list grew beyond all measure."""
    for field, value in delta.items():
        before = held.get(field)
        if value is None:
            held.setdefault(field, None)
        elif type(value) is list:
            items = before if type(before) is list else []
            held[field] = items
            if not _join_items(items, value, field == "tool_calls"):
                return False
        elif before is None or before == "":
            held[field] = value
        elif field in _KEPT_FIRST:
            continue
        elif type(value) is str and type(before) is StringIO:
            before.write(value)
        elif type(value) is str and type(before) is str:
            held[field] = text = StringIO()
            text.write(before)
            text.write(value)
        elif type(value) is dict and type(before) is dict:
            if not _join(before, value):
                return False
        else:
            held[field] = value
    return True


def _join_items(held: list[Any], items: list[Any], are_calls: bool) -> bool:
    for item in items:
        match = _match(held, item, are_calls) if type(item) is dict else None
        if match is not None:
            if not _join(match, item):
                return False
        else:
            held.append(item)
            if len(held) > _MAX_ITEMS:
                return False
    return True


def _match(held: list[Any], item: dict[str, Any], are_calls: bool) -> dict[str, Any] | None:
    """The item of `held` that `item` continues: the last with its index."""
    index = item.get("index")
    if type(index) is not int:
        # Vendors that number no tool calls send each whole, or name it in its first piece.
        continues = are_calls and held and not item.get("id")
        return held[-1] if continues and type(held[-1]) is dict else None
    for candidate in reversed(held):
        if type(candidate) is dict and candidate.get("index") == index:
            # Some vendors number all parallel calls 0; another id is another call.
            other = are_calls and item.get("id") and candidate.get("id") and item["id"] != candidate["id"]
            return None if other else candidate
    return None


def _finished(value: Any) -> Any:
    """A copy with every growing text turned into a string."""
    if type(value) is StringIO:
        return value.getvalue()
    if type(value) is dict:
        return {field: _finished(member) for field, member in value.items()}
    if type(value) is list:
        return [_finished(item) for item in value]
    return value


def _without_index(call: Any) -> Any:
    return {field: value for field, value in call.items() if field != "index"} if type(call) is dict else call


def _index_of(call: Any) -> int:
    index = call.get("index") if type(call) is dict else None
    return index if type(index) is int else 0


def _length_of_text(value: Any) -> int:
    """Characters of all texts in a delta."""
    if type(value) is str:
        return len(value)
    if type(value) is dict:
        return sum(map(_length_of_text, value.values()))
    if type(value) is list:
        return sum(map(_length_of_text, value))
    return 0
