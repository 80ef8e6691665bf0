"""Prompt caching as Anthropic bills it: what was marked with `cache_control` before is read, what is new is written.

No time passes for it and no length is too short: the same requests in the same order get the same counts.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from watchllm.sim.knobs import Knobs
from watchllm.sim.text import count_tokens

_MAX_PREFIXES = 10_000
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_ATTACHMENT = 85
_BASE_TOKENS = 3
_encode = msgspec.json.Encoder(order="deterministic").encode


class PromptCache:
    """The beginnings of prompts that were marked, bounded in number; the oldest go first."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def clear(self) -> None:
        self._seen.clear()

    def usage(self, fields: dict[str, Any], knobs: Knobs) -> dict[str, Any]:
        """The input's side of `usage`, and remember what the request marks. The knobs `cached` and `cache_write` say
        other counts. `input_tokens` is what was neither read nor written."""
        total, marks = _measure(fields)
        read = next((tokens for mark, tokens, _ in reversed(marks) if mark in self._seen), 0)
        long = False
        written = 0
        if marks:
            _, upto, ttl = marks[-1]
            written, long = max(upto - read, 0), ttl == "1h"
        for mark, tokens, _ in marks:
            self._seen.pop(mark, None)
            self._seen[mark] = tokens
        while len(self._seen) > _MAX_PREFIXES:
            del self._seen[next(iter(self._seen))]
        if knobs.cached or knobs.cache_write:
            read = min(knobs.cached, total)
            written = min(knobs.cache_write, total - read)
        return {
            "input_tokens": total - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0 if long else written,
                "ephemeral_1h_input_tokens": written if long else 0,
            },
        }


def input_tokens(fields: dict[str, Any]) -> int:
    """All tokens of the prompt: tools, system, messages."""
    return _measure(fields)[0]


def _measure(fields: dict[str, Any]) -> tuple[int, list[tuple[bytes, int, str]]]:
    """All tokens; and for each marked beginning what identifies it, its tokens, and how long it is to be kept."""
    state = blake2b(_encode(fields.get("model")), digest_size=16)
    marks: list[tuple[bytes, int, str]] = []
    total = _BASE_TOKENS
    for piece in _pieces(fields):
        control = piece.get("cache_control")
        plain = {name: value for name, value in piece.items() if name != "cache_control"}
        state.update(_encode(plain))
        total += _tokens(plain)
        if control:
            marks.append((state.digest(), total, str(control.get("ttl", "5m"))))
    whole = fields.get("cache_control")
    if whole:
        marks.append((state.digest(), total, str(whole.get("ttl", "5m"))))
    return total, marks


def _pieces(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The prompt's blocks in the order that caching goes by."""
    for tool in fields.get("tools") or ():
        described = {name: value for name, value in tool.items() if name != "cache_control"}
        yield {"type": "tool", "tool": described, "cache_control": tool.get("cache_control")}
    yield from _blocks(fields.get("system"))
    for message in fields["messages"]:
        yield {"type": "role", "role": message["role"]}
        yield from _blocks(message["content"])


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []


def _tokens(piece: dict[str, Any]) -> int:
    kind = piece.get("type")
    if kind == "role":
        return _TOKENS_PER_MESSAGE
    if kind == "text":
        return count_tokens(piece["text"])
    if kind in ("image", "document"):
        source = piece["source"]
        text = source.get("data") if source.get("type") == "text" else None
        return count_tokens(text) if isinstance(text, str) else _TOKENS_PER_ATTACHMENT
    return count_tokens(_encode(piece).decode())
