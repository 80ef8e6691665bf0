"""What can be set on a project: names, forms and defaults, the same on the command line, in the API and in exports."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from watchllm.domain import setting_values as form
from watchllm.domain.limits import LIMIT_FORMS, Limits
from watchllm.domain.setting_values import ALLOW, OFF, ON, REFUSE, SHADOW, InvalidSetting, parsed

__all__ = ["ALLOW", "OFF", "ON", "REFUSE", "SHADOW", "InvalidSetting", "ProjectSettings", "parse_settings"]

NEVER_EXPIRES = -1
NEVER_STORE = 0
LEAST_CONFIDENCE = 0.5
"""What `min_confidence` is at least: below, it is likelier that an answer is wrong than that it is right."""
_MAX_JUDGE_MS = 10_000
_MAX_ASSUMED = 10_000_000
_MAX_JUDGE_PER_MINUTE = 100_000


class ProjectSettings(Limits, frozen=True, omit_defaults=True):
    """A project's limits and policies. `cache_ttl` in seconds: 0 = never store, -1 = never expires. `instance_keys`:
    where the project has no provider key of its own that works, the operator's instance-wide one may be used.
    `unpriced`: models without a known price are used as others are (`allow`), or not at all (`refuse`); None = as
    others, but not where a budget holds, which could not be kept. `assumed_output_tokens`: what is reserved for an
    answer whose length the request does not bound.

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
    instance_keys: bool = True
    unpriced: str | None = None
    assumed_output_tokens: int = 1024
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


def parse_settings(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Turn `name=value` texts into typed values. An empty value means: back to the default.

    Raises InvalidSetting, naming the setting and the accepted form.
    """
    return {name: parsed(name, text, _PARSERS, ProjectSettings()) for name, text in pairs.items()}


def with_changes(settings: ProjectSettings, changes: Mapping[str, Any]) -> ProjectSettings:
    """A copy of `settings` with parsed `changes` applied."""
    return msgspec.structs.replace(settings, **changes)


def _confidence(text: str) -> float:
    try:
        confidence = form.share(text)
    except ValueError:
        confidence = 0.0
    if confidence < LEAST_CONFIDENCE:
        raise ValueError(f"expected a number from {LEAST_CONFIDENCE} to 1: how sure it has to be that serving is right")
    return confidence


_PARSERS: dict[str, Callable[[str], Any]] = {
    **LIMIT_FORMS,
    "assumed_output_tokens": form.whole(1, _MAX_ASSUMED),
    "cache": form.on_off,
    "cache_ttl": form.ttl,
    "cache_ttl_embeddings": form.ttl,
    "cache_scope": form.scope,
    "default_provider": form.name,
    "instance_keys": form.on_off,
    "unpriced": form.unpriced,
    "semantic": form.mode,
    "min_confidence": _confidence,
    "similarity_threshold": form.share,
    "hit_headers": form.on_off,
    "judge_model": form.model,
    "judge_timeout_ms": form.whole(1, _MAX_JUDGE_MS),
    "judge_per_minute": form.whole(0, _MAX_JUDGE_PER_MINUTE),
    "judge_usd_day": form.usd,
    "judge_in_shadow": form.on_off,
    "cross_encoder": form.on_off,
}
