"""What the console's pages work with; one object a process, put together by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from jinja2 import Environment

from watchllm.cache.entry import CacheStats
from watchllm.configuration import Configuration
from watchllm.console.proxies import ProxyStates
from watchllm.console.rendering import environment
from watchllm.console.sessions import Sessions
from watchllm.console.throttle import FailureThrottle
from watchllm.control.plane import ControlPlane

# A password hash takes 64 MiB and a core for its time: a flood of sign-ins must not have more than this of either.
_HASHES_AT_ONCE = 2


class CacheTotals(Protocol):
    """The exact cache of this host as a whole."""

    def __call__(self) -> CacheStats | str:
        """Entries and bytes of all projects together, or why they cannot be told. Blocks for a read."""
        ...


@dataclass(slots=True)
class Console:
    """Everything a page may ask. `published_version` is the snapshot's on this host; `secure`: cookies only by TLS."""

    plane: ControlPlane
    configuration: Configuration
    sessions: Sessions
    throttle: FailureThrottle
    token_throttle: FailureThrottle
    proxies: ProxyStates
    cache_totals: CacheTotals
    published_version: Callable[[], int]
    now: Callable[[], float]
    secure: bool
    templates: Environment = field(default_factory=environment)
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_HASHES_AT_ONCE))
