"""The knobs: how one request asks the simulator to be slow, to fail or to misbehave, and how their spellings are read.

The same knobs come from the command line (defaults of the process), from the model's name
(`sim/slow-500ms+tokens-50`) and from the `X-Sim` header (`latency=500ms,tokens=50`); later ones win.
"""

from collections.abc import Callable
from typing import Any

import msgspec

_LATE_USAGE_DEFAULT = 0.3
_BIG_DEFAULT = 10 * 1024 * 1024
_BIG_MAX = 64 * 1024 * 1024
_MAX_TOKENS = 1_000_000
_MAX_SECONDS = 86_400.0
_KNOWN_MODELS_BOUND = 4096


class InvalidKnob(ValueError):
    """A knob that does not exist or has a value of the wrong form; the message lists what is accepted."""


class Knobs(msgspec.Struct, frozen=True):
    """How one request is answered. Times are seconds; counts of chunks are stream events, -1 = not asked for.

    `duplicate` repeats that event of a stream, counted from 1, and 0 all of them; `split` sends pieces of that many
    bytes; `big` is a token of that many characters.
    """

    latency: float = 0.0
    chunk_time: float = 0.0
    status: int = 0
    code: str = ""
    retry_after: float = -1.0
    error_rate: float = 0.0
    fail: int = 0
    hang: bool = False
    reset: bool = False
    cut: int = -1
    short: int = -1
    stall: int = -1
    stream_error: int = -1
    duplicate: int = -1
    split: int = 0
    big: int = 0
    error_200: bool = False
    failed: bool = False
    html: bool = False
    half_json: bool = False
    wrong_type: bool = False
    empty: bool = False
    no_done: bool = False
    no_usage: bool = False
    late_usage: float = 0.0
    encoding: str = ""
    set_cookie: bool = False
    tokens: int = 0
    echo: bool = False
    judge: bool = False
    blank: bool = False
    refusal: bool = False
    content_filter: bool = False
    reasoning: int = 0
    cached: int = 0
    cache_write: int = 0
    redacted: bool = False
    raw_reasoning: bool = False
    cite: bool = False


def from_header(text: str, base: Knobs) -> Knobs:
    """`base` with the knobs of an `X-Sim` header applied. Raises InvalidKnob."""
    changes: dict[str, Any] = {}
    for part in text.split(","):
        part = part.strip()
        if part:
            name, _, value = part.partition("=")
            changes.update(_parse(name.strip().lower().replace("-", "_"), value.strip()))
    return msgspec.structs.replace(base, **changes)


class ModelNames:
    """Reads knobs out of model names and remembers the names already seen, as most requests repeat one of a few."""

    def __init__(self, base: Knobs) -> None:
        self._base = base
        self._seen: dict[str, tuple[Knobs, str]] = {}

    def read(self, model: str) -> tuple[Knobs, str]:
        """The knobs that `model` asks for, and what is left of the name: the parts that are no knobs."""
        known = self._seen.get(model)
        if known is None:
            if len(self._seen) >= _KNOWN_MODELS_BOUND:
                self._seen.clear()
            known = self._seen[model] = self._read(model)
        return known

    def _read(self, model: str) -> tuple[Knobs, str]:
        changes: dict[str, Any] = {}
        own: list[str] = []
        for part in model.removeprefix("sim/").split("+"):
            asked = _parse_model_part(part)
            changes.update(asked)
            if not asked:
                own.append(part)
        knobs = msgspec.structs.replace(self._base, **changes) if changes else self._base
        return knobs, "+".join(own)


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `2s` or `0`. Raises ValueError."""
    if text == "0":
        return 0.0
    if text.endswith("ms"):
        seconds = float(text[:-2]) / 1000
    elif text.endswith("s"):
        seconds = float(text[:-1])
    else:
        raise ValueError("expected a duration such as 500ms or 2s")
    return _within(seconds, 0.0, _MAX_SECONDS)


def parse_rate(text: str) -> float:
    """A share from 0 to 1. Raises ValueError."""
    return _within(float(text), 0.0, 1.0)


def parse_status(text: str) -> int:
    """An HTTP status of an answer, 200 to 599. Raises ValueError."""
    return int(_within(int(text), 200, 599))


def parse_tokens(text: str) -> int:
    """A number of tokens, from 0 to a million. Raises ValueError."""
    return int(_within(int(text), 0, _MAX_TOKENS))


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"expected {low:g} to {high:g}")
    return value


def _piece(text: str) -> int:
    return int(_within(int(text), 1, _BIG_MAX))


def _encoding(text: str) -> str:
    if text not in ("gzip", "deflate", "br", "zstd"):
        raise ValueError("expected gzip, deflate, br or zstd")
    return text


def _seconds(text: str) -> float:
    return _within(float(text), 0.0, _MAX_SECONDS)


_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "latency": ("latency", parse_duration),
    "slow": ("latency", parse_duration),
    "chunk": ("chunk_time", parse_duration),
    "late_usage": ("late_usage", parse_duration),
    "status": ("status", parse_status),
    "code": ("code", str),
    "retry_after": ("retry_after", _seconds),
    "error_rate": ("error_rate", parse_rate),
    "fail": ("fail", parse_tokens),
    "cut": ("cut", parse_tokens),
    "short": ("short", parse_tokens),
    "stall": ("stall", parse_tokens),
    "stream_error": ("stream_error", parse_tokens),
    "duplicate": ("duplicate", parse_tokens),
    "split": ("split", _piece),
    "big": ("big", _piece),
    "encoding": ("encoding", _encoding),
    "tokens": ("tokens", parse_tokens),
    "reasoning": ("reasoning", parse_tokens),
    "cached": ("cached", parse_tokens),
    "cache_write": ("cache_write", parse_tokens),
}
_FLAGS: dict[str, dict[str, Any]] = {
    name: {name: True}
    for name in (
        "hang",
        "reset",
        "html",
        "half_json",
        "wrong_type",
        "empty",
        "no_done",
        "no_usage",
        "set_cookie",
        "echo",
        "judge",
        "blank",
        "refusal",
        "content_filter",
        "error_200",
        "failed",
        "redacted",
        "raw_reasoning",
        "cite",
    )
} | {
    "gzip": {"encoding": "gzip"},
    "late_usage": {"late_usage": _LATE_USAGE_DEFAULT},
    "duplicate": {"duplicate": 0},
    "split": {"split": 1},
    "big": {"big": _BIG_DEFAULT},
}
_USAGE: dict[str, dict[str, Any]] = {
    "none": {"no_usage": True},
    "late": {"late_usage": _LATE_USAGE_DEFAULT},
    "normal": {"no_usage": False, "late_usage": 0.0},
}
# A stray "-" in a model's name is common ("code-davinci"), so names that are words of real models need a header.
_HEADER_ONLY = frozenset({"code"})


def _parse(name: str, value: str) -> dict[str, Any]:
    if not value and name in _FLAGS:
        return _FLAGS[name]
    if name == "usage":
        if value not in _USAGE:
            raise InvalidKnob(f"usage={value}: expected {', '.join(_USAGE)}")
        return _USAGE[value]
    if name not in _VALUES:
        known = sorted({*_VALUES, *_FLAGS, "usage"})
        raise InvalidKnob(f"unknown or malformed knob {name!r}; known knobs: {', '.join(known)}")
    field, parser = _VALUES[name]
    try:
        return {field: parser(value)}
    except ValueError as error:
        raise InvalidKnob(f"{name}={value}: {error}") from None


def _parse_model_part(part: str) -> dict[str, Any]:
    whole = part.replace("-", "_")
    if whole in _FLAGS:
        return _FLAGS[whole]
    name, _, value = part.rpartition("-")
    name = name.replace("-", "_")
    if name not in _VALUES or name in _HEADER_ONLY:
        return {}
    try:
        return _parse(name, value)
    except InvalidKnob:
        # Not a knob after all but a model that happens to be called so.
        return {}
