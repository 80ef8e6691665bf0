"""The snapshot: all a proxy needs to know, published by the control plane and read-only for the proxy.

The records are MessagePack arrays (`array_like`): new fields are appended with a default, so that an older proxy
reads a newer snapshot and the other way round.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from watchllm.domain.limits import Limits
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.usage import ModelPrice


class KeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """One project key that is in force. Revoked keys are absent. `expires_at` in epoch seconds, 0 = never. `limits` are
    those of its own, beside its project's; None = it has none."""

    id: str
    project_id: str
    test: bool = False
    scopes: tuple[str, ...] = ("inference",)
    expires_at: int = 0
    limits: Limits | None = None


class ProviderKeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """A project's own key of a provider. `sealed` is AES-GCM: 12-byte nonce, ciphertext, tag; `id` is authenticated.

    `base_url` is None where the vendor's own applies. Lower `priority` is tried first. `dialect` is what a provider of
    the project's own speaks, None = chat completions, or it is a known vendor. A sealed empty text is no key at all.
    """

    id: str
    provider: str
    sealed: bytes
    base_url: str | None = None
    priority: int = 0
    dialect: str | None = None

    def __repr__(self) -> str:
        # Sealed or not, it is nothing for tracebacks and logs.
        return f"ProviderKeyRecord(id={self.id!r}, provider={self.provider!r}, sealed=***)"


class RouteRecord(msgspec.Struct, frozen=True, array_like=True):
    """A routing rule of a project: where the models that `name` matches lead.

    `name` is a model's name or an alias as clients send it, exact or ending in `*`. `choices` are (model, weight) with
    weights from 1 on, `fallbacks` models in the order they are tried: `provider/model` or a model's name, never another
    route. `retries` counts the further tries at one target. Times in seconds, None = the gateway's own bounds:
    `try_timeout` bounds one call upstream, `timeout` all of them together; after `hedge_after` without a first byte a
    second call is begun beside the first, None = never.
    """

    name: str
    choices: tuple[tuple[str, int], ...]
    fallbacks: tuple[str, ...] = ()
    retries: int = 0
    try_timeout: float | None = None
    timeout: float | None = None
    hedge_after: float | None = None


class OrganizationRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a project's organization means for its requests: the limits of its plan and of its own, the requests beyond
    the monthly ones that it pays for, and its plan's tier, by which requests that have to wait are served."""

    id: str
    tier: str
    limits: Limits = Limits()
    overage_requests: int = 0


class ProjectRecord(msgspec.Struct, frozen=True, array_like=True):
    """One project with everything that belongs to it. `narrowed` is never published: a proxy sets it for a key that may
    use less than its project."""

    id: str
    organization_id: str
    name: str
    settings: ProjectSettings = ProjectSettings()
    provider_keys: tuple[ProviderKeyRecord, ...] = ()
    routes: tuple[RouteRecord, ...] = ()
    organization: OrganizationRecord | None = None
    narrowed: Limits | None = None


class Vendor(msgspec.Struct, frozen=True, array_like=True):
    """A provider as data. `families` are model-name prefixes; `defaults` the request fields that mean the same when
    left out, per endpoint family; those in `nullable` also mean the same when null.

    `dialects` are those it speaks, its own first; `fetch_images`: it takes images as base64 only, so that those given
    by URL are fetched for it; `aliases` are request fields of the endpoint family `generate` that mean the same as the
    one they map to (`max_completion_tokens` as `max_tokens`). With `needs_base_url`, `base_url` is empty and each key
    names its own; `key_optional` servers may run without a key.
    """

    name: str
    base_url: str
    env_prefix: str = ""
    families: tuple[str, ...] = ()
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    defaults: dict[str, dict[str, Any]] = {}
    stream_usage: bool = True
    nullable: dict[str, tuple[str, ...]] = {}
    dialects: tuple[str, ...] = ("chat",)
    fetch_images: bool = False
    aliases: dict[str, str] = {}
    needs_base_url: bool = False
    key_optional: bool = False


class PriceRow(msgspec.Struct, frozen=True, array_like=True):
    """Rates of the models that `match` describes: a tree of `{"equals"|"starts_with"|"ends_with"|"contains"|"regex":
    text}`, `{"or"|"and": [...]}`. Rows are tried in order. `variants` are the prices of other tiers (`usage.TIERS`)."""

    match: Any
    price: ModelPrice
    model: str = ""
    variants: dict[str, ModelPrice] = {}


class SnapshotReader(Protocol):
    """How a proxy reads the snapshot. Every method is a memory-mapped read of microseconds, safe on the event loop."""

    def version(self) -> int:
        """Grows with each publication; 0 = nothing was ever published."""
        ...

    def key(self, digest: bytes) -> KeyRecord | None: ...

    def project(self, project_id: str) -> ProjectRecord | None: ...

    def any_project(self, is_wanted: Callable[[ProjectRecord], bool], limit: int) -> bool:
        """Whether one of `limit` projects, whichever come first, `is_wanted`; microseconds each."""
        ...

    def vendors(self) -> tuple[Vendor, ...]: ...

    def prices(self, provider: str) -> tuple[PriceRow, ...]: ...

    def secret(self, name: str) -> bytes | None:
        """A value that all proxies share, such as the key of the cache's hash (`cache_hash`)."""
        ...
