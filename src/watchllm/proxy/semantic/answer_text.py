"""The words of a stored answer, for a judge to read."""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.cache.entry import Entry
from watchllm.providers.dialect import CHAT, MESSAGES

_decode = msgspec.json.Decoder().decode


def answer_text(entry: Entry) -> str:
    """The text of an answer that `keep.ends_by_itself` let pass, without what its model thought."""
    answer = _decode(entry.body)
    if entry.dialect == CHAT:
        choice = answer["choices"][0]
        return str(choice["text"] if entry.kind == "completions" else choice["message"]["content"])
    if entry.dialect == MESSAGES:
        return _joined(answer["content"], "text")
    return "".join(_joined(item["content"], "output_text") for item in answer["output"] if item["type"] == "message")


def _joined(parts: list[Any], kind: str) -> str:
    return "".join(part["text"] for part in parts if part["type"] == kind)
