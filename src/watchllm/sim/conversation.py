"""A request's content told the same way whatever dialect it came in, so that the same question gets the same words.

What a translation may lose or rename is left out on purpose: ids of calls, thinking and its budget, cache marks, how
the answer is delivered, bounded or attributed.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from watchllm.sim.answer import Tool
from watchllm.sim.text import count_tokens, digest

_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_ATTACHMENT = 85
_EXACT_AS_FLOAT = 2**53
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode
# Told elsewhere in the seed, or without influence on the words.
_NO_PARAMETERS = frozenset(
    {
        "messages", "input", "instructions", "system", "tools", "tool_choice", "parallel_tool_calls", "functions",
        "function_call", "response_format", "text", "output_config", "output_format",
        "reasoning_effort", "reasoning", "thinking",
        "model", "stream", "stream_options", "user", "metadata", "store", "n", "max_tokens", "max_completion_tokens",
        "max_output_tokens", "max_tool_calls", "stop", "stop_sequences", "logprobs", "top_logprobs", "include",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier",
        "truncation", "background", "previous_response_id", "cache_control",
    }
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "verbosity": "medium", "modalities": ["text"],
}  # fmt: skip
_EMPTY_SCHEMA_KEYS = frozenset({"type", "properties", "required", "additionalProperties", "$schema"})


class Part(NamedTuple):
    """A piece of a message. `kind` is text, image, audio or file; `value` its text, its base64 data or its address."""

    kind: str
    value: str


class Conversation:
    """What was said so far. `text` is the last user message's; `answered_call` says that a tool's result came last."""

    __slots__ = ("answered_call", "items", "system", "text", "tokens")

    def __init__(self) -> None:
        self.system: list[str] = []
        self.items: list[tuple[str, ...]] = []
        self.text = ""
        self.answered_call = False
        self.tokens = 3

    def instruct(self, text: str) -> None:
        """A system prompt, or a piece of one."""
        self.system.append(text)
        self.tokens += _TOKENS_PER_MESSAGE + count_tokens(text)

    def say(self, role: str, parts: Iterable[Part]) -> None:
        """A message of the user or the assistant."""
        said = [part for part in parts if part.value]
        self.items += [(role, *part) for part in said]
        self.answered_call = False
        if role.startswith("user"):
            self.text = "".join(part.value for part in said if part.kind == "text")
        self._count(said)

    def call(self, name: str, arguments: str) -> None:
        """A tool that the assistant called; `arguments` is JSON or a free tool's text."""
        try:
            arguments = _encode(_decode(arguments)).decode()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # A free tool's text, or what a model wrote that is no JSON: it stands for itself.
        self.items.append(("call", name, arguments))
        self.tokens += _TOKENS_PER_MESSAGE + count_tokens(name + arguments)

    def result(self, parts: Iterable[Part]) -> None:
        """What a called tool gave back."""
        said = [part for part in parts if part.value]
        self.items += [("result", *part) for part in said]
        self.answered_call = True
        self._count(said)

    def _count(self, parts: list[Part]) -> None:
        self.tokens += _TOKENS_PER_MESSAGE
        for kind, value in parts:
            self.tokens += count_tokens(value) if kind == "text" else _TOKENS_PER_ATTACHMENT


def seed_of(
    conversation: Conversation, model: str, tools: Iterable[Tool], choice: str, schema: Any, fields: dict[str, Any]
) -> bytes:
    """What stands for the question. `model` is without prefix and knobs; `choice` is "" (auto), "*" (any), "none" or a
    tool's name; `fields` is the request, of which only parameters that may change the words are read."""
    system = " ".join(" ".join(conversation.system).split())
    return digest(
        _encode((system, conversation.items, model, list(tools), choice, schema, _parameters(fields))),
    )


def data_of(url: str) -> str:
    """The base64 data of a `data:` URL; any other address as it is."""
    return url.partition(";base64,")[2] or url if url.startswith("data:") else url


def tool_schema(schema: Any) -> Any:
    """The schema of a tool's arguments; None for one that takes none, however that is written."""
    if isinstance(schema, dict) and schema.keys() <= _EMPTY_SCHEMA_KEYS:
        return schema if schema.get("properties") or schema.get("required") else None
    return schema


def tools_tokens(*described: Any) -> int:
    """How many tokens the description of tools and formats is billed as."""
    return sum(count_tokens(_encode(one).decode()) for one in described if one)


def _parameters(fields: dict[str, Any]) -> dict[str, Any]:
    found = {
        name: _number(value)
        for name, value in fields.items()
        if name not in _NO_PARAMETERS and value is not None and value != _DEFAULTS.get(name)
    }
    text = fields.get("text")
    verbosity = text.get("verbosity") if isinstance(text, dict) else None
    if verbosity not in (None, _DEFAULTS["verbosity"]):
        found["verbosity"] = verbosity
    return found


def _number(value: Any) -> Any:
    # 1 and 1.0 are the same temperature; a large seed must stay itself.
    return float(value) if type(value) is int and abs(value) < _EXACT_AS_FLOAT else value
