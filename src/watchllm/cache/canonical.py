"""The canonical form of a request: equal bytes for requests that must get the same answer, different bytes for others.

The form is a JSON document with sorted keys. What does not matter is brought to one spelling: the order of keys, a
single text part against plain text, declared defaults, Unicode composition and line ends (numbers were unified when
the body was read). Everything else, known or not, stays in. JSON schemas keep the order of their keys, because models
fill a schema in in its order. The model is left out: the key holds the one that was resolved.

The form is injective up to those equivalences, because it is itself a document that can be read back; nothing is
joined by a delimiter that content could imitate.
"""

import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from watchllm.cache.normal_form import normalized
from watchllm.domain import json_body

_encode = msgspec.json.Encoder(order="sorted").encode
_encode_in_order = msgspec.json.Encoder().encode


class Defaults:
    """The fields that mean the same when left out, of one vendor and endpoint family. Make it once, not per request.

    `values` are the declared defaults; the fields in `nullable` are also left out when they are null.
    """

    __slots__ = ("nullable", "values")

    def __init__(self, values: Mapping[str, Any] | None = None, nullable: Collection[str] = ()) -> None:
        # Read back as a request is, so that a default written as 1.0 equals a request's 1.
        self.values: dict[str, Any] = json_body.parse(_encode(dict(values or {})))
        self.nullable = frozenset(nullable)

    def leave_out(self, field: str, value: Any) -> bool:
        """Whether a request with `field` set to `value` means the same as one without."""
        if value is None and field in self.nullable:
            return True
        if field not in self.values:
            return False
        default = self.values[field]
        # Python holds True == 1; a provider does not.
        if type(value) is not type(default):
            return False
        if type(value) is dict or type(value) is list:
            return _encode(value) == _encode(default)
        return bool(value == default)


NO_DEFAULTS = Defaults()

MAX_ITEMS = 16_384
"""Inputs of one embeddings request that are looked at one by one, at some 3 µs each; OpenAI takes 2,048."""


def is_plain(body: bytes) -> bool:
    """Whether no string in `body` can need Unicode or line-end normalisation, told without looking at each.

    A carriage return in a JSON string must be an escape. Normal forms are closed under substrings, so where the whole
    text is composed every string in it is; escapes, which hide characters from that test, count as not plain.
    """
    if b"\\" in body and (b"\\u" in body or b"\\r" in body):
        return False
    return body.isascii() or unicodedata.is_normalized("NFC", body.decode())


def canonical_form(request: Mapping[str, Any], *, plain: bool, defaults: Defaults = NO_DEFAULTS) -> bytes:
    """The canonical form of a request as `json_body.parse` read it; about 2 µs for 500 bytes. `request` is not changed.

    `plain` is what `is_plain` says of the body. Raises nothing: wrong types stay as they are, and matter.
    """
    return _encode(canonical_fields(request, plain=plain, defaults=defaults))


def canonical_fields(request: Mapping[str, Any], *, plain: bool, defaults: Defaults = NO_DEFAULTS) -> dict[str, Any]:
    """The fields that the canonical form is written of."""
    if not plain:
        request = _normalised(request)
    fields: dict[str, Any] = {}
    values = defaults.values
    for field, value in request.items():
        if field in LEFT_OUT or ((value is None or field in values) and defaults.leave_out(field, value)):
            continue
        reduce = _REDUCED.get(field)
        fields[field] = value if reduce is None else reduce(value)
    return fields


def embedding_base(request: Mapping[str, Any], *, plain: bool, defaults: Defaults = NO_DEFAULTS) -> bytes:
    """The canonical form of all that the items of an embeddings request share.

    Without `encoding_format`: it changes how a vector is written, not the vector.
    """
    shared = {field: value for field, value in request.items() if field not in ("input", "encoding_format")}
    return canonical_form(shared, plain=plain, defaults=defaults)


def embedding_items(request: Mapping[str, Any], *, plain: bool) -> list[bytes] | None:
    """The canonical form of each item of an embeddings request, in order; a text alone and a list of it are the same.

    None when `input` is nothing that OpenAI documents (a text, tokens, or a non-empty list of one of these), or holds
    more than MAX_ITEMS.
    """
    given = request.get("input")
    items = given if type(given) is list and given and type(given[0]) is not int else [given]
    if len(items) > MAX_ITEMS:
        return None
    for item in items:
        if type(item) is not str and not (type(item) is list and item and all(type(token) is int for token in item)):
            return None
    return [_encode(item if plain else _normalised(item)) for item in items]


LEFT_OUT = frozenset(
    ("model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key"),
)
"""Fields that are no part of the form."""


def _in_order(schema: Any) -> msgspec.Raw:
    """A schema, in the order it was written in, in its place in the form."""
    return msgspec.Raw(_encode_in_order(schema))


def _with_schema(holder: Any, *path: str) -> Any:
    """A copy of `holder` in which the schema at `path`, if there is one, keeps its order."""
    if type(holder) is not dict or path[0] not in holder:
        return holder
    below = holder[path[0]]
    return {**holder, path[0]: _in_order(below) if len(path) == 1 else _with_schema(below, *path[1:])}


def _messages(messages: Any) -> Any:
    if type(messages) is not list:
        return messages
    return [_message(message) if type(message) is dict else message for message in messages]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if type(content) is list and len(content) == 1:
        part = content[0]
        if type(part) is dict and len(part) == 2 and part.get("type") == "text" and type(part.get("text")) is str:
            return {**message, "content": part["text"]}
    return message


def _tools(tools: Any) -> Any:
    if type(tools) is not list:
        return tools
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> Any:
    for path in (("function", "parameters"), ("parameters",), ("input_schema",)):
        tool = _with_schema(tool, *path)
    return tool


def _response_format(value: Any) -> Any:
    return _with_schema(_with_schema(value, "json_schema", "schema"), "schema")


_REDUCED: dict[str, Callable[[Any], Any]] = {
    "messages": _messages,
    "tools": _tools,
    "functions": _tools,
    "response_format": _response_format,
    "text": lambda value: _with_schema(value, "format", "schema"),
    "guided_json": _in_order,
}


def _normalised(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is dict:
        members = {_text(key): _normalised(member) for key, member in value.items()}
        if len(members) == len(value):
            return members
        # Two keys would become one: an object that distinguishes them is compared as it was written.
        return {key: _normalised(member) for key, member in value.items()}
    if kind is list:
        return [_normalised(item) for item in value]
    return value


def _text(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    # Where it is not normalised, it is compared as it was written.
    composed = normalized("NFC", text)
    return text if composed is None else composed
