"""What can be set on a project: names, forms and defaults, the same on the command line, in the API and in exports."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

NEVER_EXPIRES = -1
NEVER_STORE = 0
ALLOW, REFUSE = "allow", "refuse"
OFF, SHADOW, ON = "off", "shadow", "on"
"""Modes of the semantic cache: not asked; asked and recorded, never served; served."""
LEAST_CONFIDENCE = 0.5
"""What `min_confidence` is at least: below, it is likelier that an answer is wrong than that it is right."""
_MAX_TTL = 10 * 365 * 86_400
_MAX_MODEL = 256
_MAX_JUDGE_MS = 10_000
_MAX_JUDGE_PER_MINUTE = 100_000
_MAX_USD = 1e6


class ProjectSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """A project's policies. `cache_ttl` in seconds: 0 = never store, -1 = never expires. `instance_keys`: where the
    project has no provider key of its own that works, the operator's instance-wide one may be used. `unpriced`: models
    without a known price are used as others are (`allow`), or not at all (`refuse`).

    `semantic` is the mode of the semantic cache. A stored answer is served when the confidence that it is right reaches
    `min_confidence` (0.5 to 1; None = the engine's own) and, where it is set, the similarity `similarity_threshold`.
    `hit_headers`: answers tell whether and how they came from the cache, which in a cache that several share tells what
    others asked.

    `judge_model` is asked where the confidence alone does not suffice, None = nobody is. A request waits for it at most
    `judge_timeout_ms`; it is asked `judge_per_minute` times at most in every proxy process, and for `judge_usd_day` a
    day of UTC on each host. `judge_in_shadow`: in shadow, too, where nothing is served. `cross_encoder`: so is the
    instance's cross-encoder, before the judge, where the instance has one."""

    cache: bool = True
    cache_ttl: int = 86_400
    cache_ttl_embeddings: int = NEVER_EXPIRES
    cache_scope: str = "project"
    default_provider: str | None = None
    allowed_models: tuple[str, ...] | None = None
    allowed_providers: tuple[str, ...] | None = None
    instance_keys: bool = True
    unpriced: str = ALLOW
    semantic: str = SHADOW
    min_confidence: float | None = None
    similarity_threshold: float | None = None
    hit_headers: bool = True
    judge_model: str | None = None
    judge_timeout_ms: int = 400
    judge_per_minute: int = 60
    judge_usd_day: float = 1.0
    judge_in_shadow: bool = False
    cross_encoder: bool = True


class InvalidSetting(ValueError):
    """A setting that does not exist or a value of the wrong form; the message says what is accepted."""


def parse_settings(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Turn `name=value` texts into typed values. An empty value means: back to the default.

    Raises InvalidSetting, naming the setting and the accepted form.
    """
    return {name: _parse_one(name, text) for name, text in pairs.items()}


def with_changes(settings: ProjectSettings, changes: Mapping[str, Any]) -> ProjectSettings:
    """A copy of `settings` with parsed `changes` applied."""
    return msgspec.structs.replace(settings, **changes)


def _parse_one(name: str, text: str) -> Any:
    parser = _PARSERS.get(name)
    if parser is None:
        raise InvalidSetting(f"unknown setting {name!r}; known settings: {', '.join(sorted(_PARSERS))}")
    if text == "":
        return getattr(ProjectSettings(), name)
    try:
        return parser(text)
    except ValueError as error:
        raise InvalidSetting(f"{name}={text}: {error}") from None


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("expected on or off")
    return text == "on"


def _ttl(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        raise ValueError("expected whole seconds, 0 (never store) or -1 (never expires)") from None
    if not -1 <= seconds <= _MAX_TTL:
        raise ValueError(f"expected -1 (never expires), 0 (never store) or up to {_MAX_TTL} seconds")
    return seconds


def _scope(text: str) -> str:
    if text not in ("project", "user"):
        raise ValueError("expected project or user")
    return text


def _unpriced(text: str) -> str:
    if text not in (ALLOW, REFUSE):
        raise ValueError(f"expected {ALLOW} or {REFUSE}")
    return text


def _mode(text: str) -> str:
    if text not in (OFF, SHADOW, ON):
        raise ValueError(f"expected {OFF}, {SHADOW} or {ON}")
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:  # NaN is not, either
        raise ValueError("expected a number from 0 to 1")
    return share


def _confidence(text: str) -> float:
    try:
        confidence = _share(text)
    except ValueError:
        confidence = 0.0
    if confidence < LEAST_CONFIDENCE:
        raise ValueError(f"expected a number from {LEAST_CONFIDENCE} to 1: how sure it has to be that serving is right")
    return confidence


def _model(text: str) -> str:
    if len(text) > _MAX_MODEL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected a model's name, such as groq/llama-3.1-8b-instant or sim/judge")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or not low <= int(text[:12]) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return parse


def _usd(text: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = -1.0
    if not 0.0 <= usd <= _MAX_USD:  # NaN is not, either
        raise ValueError(f"expected US dollars, 0 to {_MAX_USD:.0f}")
    return usd


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 64:
        raise ValueError("expected a provider's name: letters, digits, - and _")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("expected names separated by commas; * may stand for any characters")
    return names


_PARSERS: dict[str, Callable[[str], Any]] = {
    "cache": _on_off,
    "cache_ttl": _ttl,
    "cache_ttl_embeddings": _ttl,
    "cache_scope": _scope,
    "default_provider": _name,
    "allowed_models": _names,
    "allowed_providers": _names,
    "instance_keys": _on_off,
    "unpriced": _unpriced,
    "semantic": _mode,
    "min_confidence": _confidence,
    "similarity_threshold": _share,
    "hit_headers": _on_off,
    "judge_model": _model,
    "judge_timeout_ms": _whole(1, _MAX_JUDGE_MS),
    "judge_per_minute": _whole(0, _MAX_JUDGE_PER_MINUTE),
    "judge_usd_day": _usd,
    "judge_in_shadow": _on_off,
    "cross_encoder": _on_off,
}
