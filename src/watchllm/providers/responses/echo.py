"""What a response repeats of its request without being shaped by it: labels of the client's own.

Requests that differ in nothing else share an answer, and none may be told the labels of another.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from watchllm.domain import json_body

# The labels, each with what a response says where the request has none.
_LABELS = {
    "metadata": msgspec.Raw(b"{}"),
    "prompt_cache_key": msgspec.Raw(b"null"),
    "safety_identifier": msgspec.Raw(b"null"),
    "user": msgspec.Raw(b"null"),
}
# One of these stands in every request that has labels; escapes could hide them.
_MARK = re.compile(rb'"metadata"|"prompt_cache_key"|"safety_identifier"|"user"|\\u00')

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def labels_of(body: bytes) -> bytes:
    """The labels of a request as one text: equal for requests to which a response repeats the same; empty for none."""
    if _MARK.search(body) is None:
        return b""
    labels = _labels(json_body.parse(body))
    return _encode_sorted(labels) if labels else b""


def labelled(response: bytes, request: dict[str, Any]) -> bytes:
    """A whole response with the labels of `request` in place of those in it; with `{}`, without any.

    Only what the provider repeats is told. Raises msgspec.DecodeError where it is no JSON object.
    """
    members = _members(response)
    labels = _labels(request)
    changed = False
    for field, nothing in _LABELS.items():
        told = members.get(field)
        if told is None:
            continue
        own = msgspec.Raw(_encode(labels[field])) if field in labels else nothing
        if bytes(told) != bytes(own):
            members[field] = own
            changed = True
    return _encode(members) if changed else response


def _labels(request: dict[str, Any]) -> dict[str, Any]:
    values = {field: request.get(field) for field in _LABELS}
    return {field: value for field, value in values.items() if value is not None and value != {}}
