"""Digests of what a request says, field by field: Python's own keyed hash of each one's canonical form.

Of a large body the parts that are large themselves are compared as they are written: bringing a megabyte to its
canonical form would hold up everybody else for longer than a whole answer from the cache takes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.cache.canonical import LEFT_OUT, Defaults, canonical_fields, is_plain
from watchllm.domain import json_body

# A client can send fields by the hundred thousand, with names as long as it likes: the rest of them count as one.
_FIELDS = 32
_NAME_LENGTH = 64
_OTHER_FIELDS = "other fields"
_PLACES = tuple(f"messages[{place}]" for place in range(32))

LARGE = 64 << 10
"""Bytes of a body, or of the parts of one, that are brought to their canonical form: about a millisecond."""
# In a body with more members, or in a list with more items, the parts are not told apart: they take 0.3 µs each.
_MOST_PARTS = 10_000
_WHOLE = "body"
# Stands for a large part where the others are brought to their canonical form.
_ELSEWHERE = b'"?"'

_encode = msgspec.json.Encoder(order="sorted").encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def field_digests(body: bytes, defaults: Defaults) -> dict[str, int]:
    """A digest for each field of `body`, which `json_body.parse` has read before, and for each of a few messages.

    Bounded in number. Takes some 4 ms at most for each megabyte.
    """
    if len(body) <= LARGE:
        return _digests(canonical_fields(json_body.parse(body), plain=is_plain(body), defaults=defaults))
    if body.count(b":") > _MOST_PARTS and body.count(b'"') > 2 * _MOST_PARTS:
        return {_WHOLE: hash(body)}
    parts = _Parts(body)
    digests = _digests(canonical_fields(json_body.parse(parts.small), plain=False, defaults=defaults))
    for name, digest in parts.large.items():
        if name in digests:
            digests[name] = digest
        elif name not in LEFT_OUT:
            parts.others ^= hash((name, digest))
    if parts.others:
        digests[_OTHER_FIELDS] = hash((digests.get(_OTHER_FIELDS), parts.others))
    return digests


class _Parts:
    """A large body, taken apart: `small` is the body with something short in the place of its large parts, `large` are
    digests of those by the names they have in `_digests`, `others` is one of all that found no room even so."""

    def __init__(self, body: bytes) -> None:
        self.large: dict[str, int] = {}
        self.others = 0
        self._left = LARGE
        members = []
        for name, raw in _members(body).items():
            part = bytes(raw)
            if len(name) + len(_ELSEWHERE) > self._left:
                if name not in LEFT_OUT:
                    self.others ^= hash((name, part))  # in whatever order
                continue
            self._left -= len(name)
            items = _few_items(part) if name == "messages" and len(part) > self._left else None
            if items is None:
                part = self._kept(name, part)
            else:
                part = b"[%b]" % b",".join(self._kept(place, item) for place, item in zip(_PLACES, items, strict=False))
            members.append(b"%b:%b" % (_encode(name), part))
        self.small = b"{%b}" % b",".join(members)

    def _kept(self, name: str, part: bytes) -> bytes:
        if len(part) > self._left:
            self.large[name] = hash(part)
            part = _ELSEWHERE
        self._left -= len(part)
        return part


def _few_items(part: bytes) -> list[bytes] | None:
    """The items of a list that is told apart by its places, None for all else."""
    if part[:1] != b"[" or part.count(b",") > _MOST_PARTS:
        return None
    items = _items(part)
    return [bytes(item) for item in items] if len(items) <= len(_PLACES) else None


def _digests(fields: dict[str, Any]) -> dict[str, int]:
    digests: dict[str, int] = {}
    others: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "messages" and type(value) is list and len(value) <= len(_PLACES):
            digests.update((place, hash(_encode(message))) for place, message in zip(_PLACES, value, strict=False))
        elif len(digests) < _FIELDS + len(_PLACES) and len(name) <= _NAME_LENGTH:
            digests[name] = hash(_encode(value))
        else:
            others[name] = value
    if others:
        digests[_OTHER_FIELDS] = hash(_encode(others))
    return digests
