"""What the control plane publishes to the proxies, and the port of the store that takes it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from watchllm.domain.snapshot import KeyRecord, PriceRow, ProjectRecord, Vendor

OwnPrices = Mapping[str, tuple[PriceRow, ...]]
"""The rows of the operator's prices.toml, by provider."""


class Installation(NamedTuple):
    """Who publishes: the `id` that its database was given, and where that is, for messages."""

    id: str
    database: str


class Publication(msgspec.Struct):
    """Records to be put into the snapshot; None means: remove. `complete` means: remove all that is not in here.

    `kept_projects` are ids of projects whose published records stay as they are all the same.
    `vendors` None leaves the published vendors as they are; `prices` and `secrets` are per provider and name.
    `own_prices` are those of `prices` that the operator has set.
    """

    keys: dict[bytes, KeyRecord | None] = {}
    projects: dict[str, ProjectRecord | None] = {}
    vendors: tuple[Vendor, ...] | None = None
    prices: dict[str, tuple[PriceRow, ...]] = {}
    secrets: dict[str, bytes] = {}
    complete: bool = False
    kept_projects: frozenset[str] = frozenset()
    own_prices: OwnPrices = {}


class SnapshotWriter(Protocol):
    """The snapshot as its one publisher at a time writes it. Where other hosts publish, too, every method but `close`
    and `kept_prices` raises OtherInstallation while what is published there is another installation's."""

    def update(self, derive: Callable[[], Publication]) -> bool:
        """Apply what `derive` returns, at once for every reader; whether anything was different.

        `derive` is called under a lock that excludes every other publisher of every process, and must read the source
        of truth inside: so a slow publisher can never put an older state over a newer one. It may be called again when
        the store had to make room. The version grows only if something was different.
        """
        ...

    def differs(self, publication: Publication) -> bool:
        """Whether applying it would change anything; takes no lock."""
        ...

    def version(self) -> int: ...

    def kept_prices(self) -> OwnPrices:
        """The operator's prices as they are published now, where homes publish that may not have them; else empty."""
        ...

    def close(self) -> None: ...
