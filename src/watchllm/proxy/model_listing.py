"""The document of `/v1/models`: the names that a key may use, made in turns and remembered.

A project may have keys of many providers with thousands of models each, and a rule about each of their names: making
the list takes a good part of a second then. So one is made at a time in a process, others are answered between its
slices, and it is made anew only when the snapshot or what the providers say has changed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from weakref import ref

import msgspec

from watchllm.domain.errors import GatewayError
from watchllm.proxy.model_forms import Model
from watchllm.proxy.model_lists import Offer, Offered
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.tenants import Tenants
from watchllm.proxy.turns import Turns
from watchllm.routing.resolve import SIMULATOR, Target

SIMULATED_MODELS = ("echo",)
MOST_NAMES = 4_000
"""Names in one listing; those of the providers that come first, where there are more."""
_MOST_LISTINGS = 64
_MOST_BYTES = 8 * 1024 * 1024
ROUTE = "route"
"""Who owns a model that is a name of the project's own."""


class _Listing(NamedTuple):
    """A document, and what the providers said when it was made: compared by identity, and not kept for it."""

    offers: tuple[ref[Offered] | None, ...]
    document: bytes


class ModelListings:
    """The listings of one proxy process, bounded in number and in bytes."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._known: OrderedDict[Tenant, _Listing] = OrderedDict()
        self._bytes = 0
        self._building = asyncio.Lock()

    async def of(self, tenant: Tenant, targets: Sequence[Target], offers: Sequence[Offer]) -> bytes:
        """The listing for `tenant`, whose usable `targets` offer what is at the same place in `offers`."""
        # A tenant belongs to one version of the snapshot, and so do its targets and the price book.
        document = self._recall(tenant, offers)
        if document is None:
            async with self._building:
                document = self._recall(tenant, offers)  # who waited may have waited for just this
                if document is None:
                    document = await self._make(tenant, targets, offers)
                    self._keep(tenant, offers, document)
        return document

    def _recall(self, tenant: Tenant, offers: Sequence[Offer]) -> bytes | None:
        listing = self._known.get(tenant)
        if listing is None or len(listing.offers) != len(offers):
            return None
        for seen, offer in zip(listing.offers, offers, strict=True):
            if (seen is None) is not (offer is None) or (seen is not None and seen() is not offer):
                return None
        self._known.move_to_end(tenant)
        return listing.document

    def _keep(self, tenant: Tenant, offers: Sequence[Offer], document: bytes) -> None:
        replaced = self._known.pop(tenant, None)
        if replaced is not None:
            self._bytes -= len(replaced.document)
        self._known[tenant] = _Listing(tuple(None if offer is None else ref(offer) for offer in offers), document)
        self._bytes += len(document)
        while len(self._known) > _MOST_LISTINGS or self._bytes > _MOST_BYTES:
            _, displaced = self._known.popitem(last=False)
            self._bytes -= len(displaced.document)

    async def _make(self, tenant: Tenant, targets: Sequence[Target], offers: Sequence[Offer]) -> bytes:
        turns = Turns()
        # The project's own names first: who made routes means them to be used.
        found = [_encoded(name, 0, ROUTE) for name in _route_names(tenant) if self._is_usable(tenant, name)]
        for target, offer in zip(targets, offers, strict=True):
            for model, created in self._models(target, offer):
                if turns.due():
                    await turns.take()
                family = tenant.router.is_family_name(model, target.provider)
                name = model if family else f"{target.provider}/{model}"
                if model and self._is_usable(tenant, name):
                    found.append(_encoded(name, created, target.provider))
                    if len(found) == MOST_NAMES:
                        return _document(found)
        return _document(found)

    def _models(self, target: Target, offer: Offer) -> Iterable[tuple[str, int]]:
        if target.provider == SIMULATOR:
            return ((model, 0) for model in SIMULATED_MODELS)
        if offer is not None:
            return offer.models
        return ((row.model, 0) for row in self._tenants.price_rows(target.provider))

    def _is_usable(self, tenant: Tenant, name: str) -> bool:
        try:
            # Not by way of what the tenant remembers: thousands of names would drive out those that are in use.
            target = tenant.router.resolve(name, tenant.project, test_key=tenant.test)
        except GatewayError:
            return False
        return not self._tenants.lacks_price(tenant, target)


def _route_names(tenant: Tenant) -> list[str]:
    """The models that the project's routes name; one that stands for many names none of them."""
    return [rule.name for rule in tenant.project.routes if not rule.name.endswith("*")]


def _encoded(name: str, created: int, owner: str) -> bytes:
    return msgspec.json.encode(Model(id=name, created=created, owned_by=owner))


def _document(models: list[bytes]) -> bytes:
    return b'{"object":"list","data":[%b]}' % b",".join(models)
