"""What Anthropic's public model table says of a model and a request cannot be written without, by the name's prefix."""

from typing import Literal, NamedTuple

Thinking = Literal["none", "budget", "adaptive"]
"""How a model is told to think: not at all, with `budget_tokens`, or adaptively with an effort."""


class _Family(NamedTuple):
    max_tokens: int
    thinking: Thinking


# The longest prefix wins. Families that are not listed yet are like the last ones that are.
_FAMILIES = {
    "claude-": _Family(64_000, "adaptive"),
    "claude-2": _Family(4096, "none"),
    "claude-instant": _Family(4096, "none"),
    "claude-3-": _Family(4096, "none"),
    "claude-3-5-": _Family(8192, "none"),
    "claude-3-7-": _Family(64_000, "budget"),
    "claude-4-opus": _Family(32_000, "budget"),
    "claude-4-sonnet": _Family(64_000, "budget"),
    "claude-opus-4": _Family(32_000, "budget"),
    "claude-opus-4-5": _Family(64_000, "budget"),
    "claude-opus-4-6": _Family(128_000, "adaptive"),
    "claude-opus-4-7": _Family(128_000, "adaptive"),
    "claude-opus-4-8": _Family(128_000, "adaptive"),
    "claude-sonnet-4": _Family(64_000, "budget"),
    "claude-sonnet-4-6": _Family(128_000, "adaptive"),
    "claude-haiku-4": _Family(64_000, "budget"),
    "claude-opus-5": _Family(128_000, "adaptive"),
    "claude-sonnet-5": _Family(128_000, "adaptive"),
    "claude-haiku-5": _Family(128_000, "adaptive"),
    "claude-fable-5": _Family(128_000, "adaptive"),
    "claude-mythos": _Family(128_000, "adaptive"),
}
# Other vendors' models behind this dialect: what all are known to take.
_OTHER = _Family(8192, "budget")


def default_max_tokens(model: str) -> int:
    """The `max_tokens` of a request that names none: what the model can write at most, as with providers that have a
    default. Never more than the model takes, where it is known; a name may have a platform's parts in front."""
    return _family(model).max_tokens


def thinking_style(model: str) -> Thinking:
    """How the model is told to think."""
    return _family(model).thinking


def _family(model: str) -> _Family:
    start = model.find("claude-")
    if start < 0:
        return _OTHER
    name = model[start:]
    return _FAMILIES[max((prefix for prefix in _FAMILIES if name.startswith(prefix)), key=len)]
