"""Embeddings item by item: reads a provider's answer, keeps each vector in a compact form and writes answers of them.

How a vector is kept. A provider writes it in base64 (32-bit floats, little-endian) or as a JSON array. It is kept as
32-bit floats (6 KB for 1,536 dimensions) where these say exactly what the provider said: always for base64, and for an
array whose numbers, read as doubles, are those floats. An array of other numbers (vendors that write the shortest
decimal of a float) is kept as it was written. So a float answer from the cache holds the same numbers, to the last bit
of a double, as the answer that was bought; in base64, which has only 32 bits, each number is the nearest float.
"""

from __future__ import annotations

import sys
from array import array
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import Any

import msgspec

from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai.usage import token_usage

DOCUMENTED = frozenset(("model", "input", "dimensions", "encoding_format", "user"))
"""The fields of a request that OpenAI documents; another one could change what an encoding means."""

Members = dict[str, msgspec.Raw]
"""An object's members, each as it was written."""


class Vector(msgspec.Struct, frozen=True, array_like=True):
    """One item's embedding: as 32-bit little-endian floats in `numbers`, or as the JSON array `written`.

    `extras` are the item's members that OpenAI does not know, as JSON members each after a comma; `model` is the
    answer's own name of the model, as JSON.
    """

    numbers: bytes
    written: bytes = b""
    extras: bytes = b""
    model: bytes = b""

    @property
    def dimensions(self) -> int:
        return self.written.count(b",") + 1 if self.written else len(self.numbers) // 4

    def item(self, index: int, *, base64: bool) -> bytes:
        """The item of an answer, as JSON; 5 µs in base64, 60 µs as an array of 1,536 numbers."""
        if base64:
            numbers = self.numbers or _floats(_numbers(self.written))
            value = b'"' + b2a_base64(numbers, newline=False) + b'"'
        else:
            value = self.written or _encode(_doubles(self.numbers))
        return b'{"object":"embedding","index":%d,"embedding":%b%b}' % (index, value, self.extras)


def pack(vector: Vector) -> bytes:
    """What is stored of an item."""
    return _pack(vector)


def unpack(stored: bytes) -> Vector | None:
    """The item again; None when the bytes are something else."""
    try:
        return _unpack(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def members(body: bytes) -> Members | None:
    """The members of an answer; None when it is not a JSON object."""
    try:
        return _members(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def items(answer: Members, expected: int) -> list[Members] | None:
    """The items of an answer in the order of their indexes; None unless there is one for each of `expected` inputs.

    A gigabyte a second: the vectors themselves are not read.
    """
    if "data" not in answer or _is_error(answer):
        return None
    try:
        found = _items(answer["data"])
        numbered = {_index(item["index"]): item for item in found}
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return None
    if len(found) != expected or numbered.keys() != _range(expected):
        return None
    return [numbered[index] for index in range(expected)]


def vector(item: Members, model: bytes) -> Vector | None:
    """The vector of one item of an answer of `model`; None when it holds none. 15 µs in base64, 65 µs as an array."""
    raw = item.get("embedding")
    if raw is None or bytes(item.get("object", b'"embedding"')) != b'"embedding"':
        return None
    extras = b"".join(
        b",%b:%b" % (_encode(name), bytes(value)) for name, value in item.items() if name not in _USUAL_IN_ITEM
    )
    written = bytes(raw)
    if written[:1] == b'"':
        try:
            numbers = a2b_base64(_text(written), strict_mode=True)
        except (Base64Error, msgspec.DecodeError, ValueError):
            return None
        return Vector(numbers, b"", extras, model) if numbers and len(numbers) % 4 == 0 else None
    try:
        doubles = _numbers(written)
    except msgspec.DecodeError:
        return None
    if not doubles:
        return None
    numbers = _floats(doubles)
    return Vector(numbers, b"", extras, model) if _doubles(numbers) == doubles else Vector(b"", written, extras, model)


def usage(answer: Members) -> TokenUsage | None:
    """The tokens that an answer says were read; vendors that name only the total mean the input."""
    if "usage" not in answer:
        return None
    reported: Any = _decode(answer["usage"])
    if type(reported) is dict and reported.get("prompt_tokens") is None:
        reported = {"prompt_tokens": reported.get("total_tokens")}
    return token_usage(reported)


def upstream_body(body: bytes, wanted: Iterable[int], model: str) -> bytes:
    """The request `body` with only the inputs at the positions `wanted`, each as it was written, and for `model`."""
    parts: dict[str, Any] = _members(body)
    inputs = _raw_list(parts["input"])
    parts["input"] = [inputs[position] for position in wanted]
    parts["model"] = model
    return _encode(parts)


def frame(model: bytes, bought: Members | None) -> tuple[bytes, bytes]:
    """What stands before and after the items of an answer: all else that `bought` says, in its order; when nothing was
    bought, `model` (as JSON) and a usage of nothing."""
    if bought is None:
        return _OPENING, b'],"model":%b,"usage":{"prompt_tokens":0,"total_tokens":0}}' % model
    names = list(bought)
    at = names.index("data")
    before = b"".join(b"%b:%b," % (_encode(name), bytes(bought[name])) for name in names[:at])
    after = b"".join(b",%b:%b" % (_encode(name), bytes(bought[name])) for name in names[at + 1 :])
    return b'{%b"data":[' % before, b"]%b}" % after


def apportioned(total: int, weights: list[int]) -> list[int]:
    """`total` shared out by weight in whole units that sum to it (largest remainders first)."""
    weight = sum(weights)
    if weight == 0:
        weights, weight = [1] * len(weights), len(weights)
    shares = [total * one // weight for one in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: -(total * weights[place] % weight))
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares


_OPENING = b'{"object":"list","data":['

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_text = msgspec.json.Decoder(str).decode
_index = msgspec.json.Decoder(int).decode
_numbers = msgspec.json.Decoder(list[float]).decode
_members = msgspec.json.Decoder(Members).decode
_items = msgspec.json.Decoder(list[Members]).decode
_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Vector).decode

_USUAL_IN_ITEM = ("object", "index", "embedding")


def _floats(numbers: list[float]) -> bytes:
    packed = array("f", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _doubles(numbers: bytes) -> list[float]:
    packed = array("f")
    packed.frombytes(numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()


def _range(count: int) -> set[int]:
    return set(range(count))


def _is_error(answer: Members) -> bool:
    return "error" in answer and bytes(answer["error"]) not in (b"null", b"false", b'""', b"{}")
