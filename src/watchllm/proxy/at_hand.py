"""Brings to hand what other processes have stored, where the cache is shared: one round trip, and then as ever."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from watchllm.cache.key import key_in_dialect
from watchllm.proxy.eager import Outcome

if TYPE_CHECKING:
    from watchllm.providers.endpoints import Endpoint
    from watchllm.proxy.services import Services
    from watchllm.routing.target import Target

MOST_KEYS = 64
"""Brought at once."""


def bring(services: Services, partition: bytes, keys: Sequence[bytes]) -> Outcome[None] | None:
    """What has to be awaited before the cache is looked into for `keys`, MOST_KEYS at most; None = nothing.

    What was brought is at hand for who goes on inside the call that ends the wait, however little the cache keeps.
    """
    if not services.cache.is_remote:
        return None
    outcome: Outcome[None] = Outcome()
    is_waited_for = services.cache.fetch(partition, keys, partial(outcome.resolve, None))
    return outcome if is_waited_for else None


def places_of(key: bytes, endpoint: Endpoint, target: Target) -> tuple[bytes, ...]:
    """The keys under which an answer may be that is looked for under `key` (`retelling.kept_for_dialect`)."""
    if endpoint.dialect in target.vendor.dialects:
        return (key,)
    return key, key_in_dialect(key, endpoint.dialect)
