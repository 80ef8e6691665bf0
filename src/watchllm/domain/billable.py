"""Which requests count against a monthly quota: inference that was answered 2xx, hits included."""

from typing import Protocol

from watchllm.domain.usage_event import CANCELLED

SIMULATOR = "sim"
"""The provider that test keys reach, and no other; what it answers is never billed."""
INFERENCE = frozenset(
    ("audio", "chat.completions", "completions", "embeddings", "images", "messages", "moderations", "responses")
)
"""The endpoints, as usage rows name them, at which a model answers. Lists, counts of tokens, files and calls of the
gateway's own are none."""


class Settled(Protocol):
    """What of a settled request decides whether it counts; a UsageEvent has it, and so has a row of usage."""

    @property
    def endpoint(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def ended(self) -> str: ...
    @property
    def streamed(self) -> bool: ...
    @property
    def first_byte_us(self) -> int | None: ...


def is_billable(endpoint: str, provider: str, status: int) -> bool:
    """Whether a request that was answered so counts."""
    return 200 <= status < 300 and provider != SIMULATOR and endpoint in INFERENCE


def counts(event: Settled) -> bool:
    """Whether a settled request counts. A stream that its client left was answered, by all that came before."""
    was_begun = event.ended == CANCELLED and event.streamed and event.first_byte_us is not None
    return is_billable(event.endpoint, event.provider, 200 if was_begun else event.status)
