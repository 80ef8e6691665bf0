"""What `/v1/models` lists is made in turns, once, and bounded, whatever providers and projects there are."""

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.control.vendors import vendors
from watchllm.domain.errors import GatewayError
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import PriceRow, ProjectRecord, ProviderKeyRecord, SnapshotReader
from watchllm.domain.usage import ModelPrice
from watchllm.proxy import model_listing, turns
from watchllm.proxy.model_listing import MOST_NAMES, ModelListings
from watchllm.proxy.model_lists import Offer, Offered, OfferedModel, _read
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.tenants import Tenants
from watchllm.routing import resolve
from watchllm.routing.resolve import Router, Target


class CountingRouter(Router):
    def __init__(self) -> None:
        super().__init__(vendors(), {})
        self.resolved = 0

    def resolve(self, model: str, project: ProjectRecord, *, test_key: bool) -> Target:
        self.resolved += 1
        return super().resolve(model, project, test_key=test_key)


class Snapshot:
    """One with the price of one model."""

    def version(self) -> int:
        return 1

    def prices(self, provider: str) -> tuple[PriceRow, ...]:
        return (PriceRow({"equals": "priced"}, ModelPrice(), "priced"),)


class World:
    """A proxy's listings, and a project with `providers` of its own."""

    def __init__(self, providers: int, **settings: Any) -> None:
        self.router = CountingRouter()
        self.listings = ModelListings(Tenants(cast(SnapshotReader, Snapshot()), {}))
        keys = tuple(
            ProviderKeyRecord(f"pk_{number}", f"mine-{number:02}", b"", f"https://{number}.example.com/v1")
            for number in range(providers)
        )
        self.project = ProjectRecord("prj_1", "org_1", "one", ProjectSettings(**settings), keys)

    def tenant(self) -> Tenant:
        return Tenant(self.project, test=False, router=self.router)

    def asked(self, tenant: Tenant, *offers: Offer) -> Any:
        targets = self.router.usable(self.project, test_key=False)
        assert [target.provider for target in targets][:1] == ["sim"]
        return self.listings.of(tenant, targets, [None, *offers])


def offered(*models: str) -> Offered:
    return Offered(tuple(OfferedModel(model, 7) for model in models))


def many(count: int, prefix: str = "model") -> Offered:
    return offered(*(f"{prefix}-{number}" for number in range(count)))


def names(document: bytes) -> list[str]:
    return [model["id"] for model in msgspec.json.decode(document)["data"]]


def test_a_document_has_the_form_that_clients_know() -> None:
    world = World(1)
    document = asyncio.run(world.asked(world.tenant(), offered("x")))
    assert msgspec.json.decode(document) == {
        "object": "list",
        "data": [
            {"id": "sim/echo", "object": "model", "created": 0, "owned_by": "sim"},
            {"id": "mine-00/x", "object": "model", "created": 7, "owned_by": "mine-00"},
        ],
    }


def test_the_names_of_one_listing_are_bounded() -> None:
    world = World(16)
    document = asyncio.run(world.asked(world.tenant(), *(many(2_000) for _ in range(16))))
    assert len(names(document)) == MOST_NAMES == 4_000


def test_what_may_be_used_is_found_behind_what_may_not() -> None:
    world = World(3, allowed_models=("mine-02/*-7", "nothing", "*/none"))
    document = asyncio.run(world.asked(world.tenant(), *(many(2_000) for _ in range(3))))
    assert names(document) == ["mine-02/model-7"]


def test_what_has_no_price_is_left_out_where_it_is_refused() -> None:
    world = World(1, unpriced="refuse")
    assert names(asyncio.run(world.asked(world.tenant(), offered("priced", "not")))) == ["sim/echo", "mine-00/priced"]


def test_others_have_their_turn_while_a_listing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_SLICE_SECONDS", -1.0)  # every slice has taken too long
    world = World(2, allowed_models=("mine-01/*",))

    async def count_turns() -> int:
        making = asyncio.ensure_future(world.asked(world.tenant(), many(300), many(300)))
        count = 0
        while not making.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(count_turns()) >= 600


def test_one_listing_is_made_however_many_ask_for_it() -> None:
    world, offer = World(1), many(500)
    tenant = world.tenant()

    async def ask_together() -> None:
        documents = await asyncio.gather(*(world.asked(tenant, offer) for _ in range(20)))
        assert all(document is documents[0] for document in documents)
        assert await world.asked(tenant, offer) is documents[0]

    asyncio.run(ask_together())
    assert world.router.resolved == 501


@pytest.mark.parametrize(
    "change",
    [
        lambda tenant, other, offer: (tenant, many(1, "new")),
        lambda tenant, other, offer: (tenant, None),
        lambda tenant, other, offer: (other, offer),
    ],
    ids=["what the provider says", "whether it says anything", "the snapshot"],
)
def test_it_is_made_anew_when_what_it_rests_on_has_changed(change: Callable[..., tuple[Tenant, Offer]]) -> None:
    world, offer = World(1), offered("old")
    tenant, other = world.tenant(), world.tenant()

    async def ask() -> None:
        await world.asked(tenant, offer)
        before = world.router.resolved
        changed = change(tenant, other, offer)
        await world.asked(*changed)
        assert world.router.resolved > before
        before = world.router.resolved
        await world.asked(*changed)
        assert world.router.resolved == before

    asyncio.run(ask())


def test_a_list_that_is_gone_is_never_taken_for_another() -> None:
    world = World(1)
    tenant = world.tenant()

    async def ask() -> None:
        for number in range(200):  # each may be where the one before was in memory
            assert names(await world.asked(tenant, offered(f"m-{number}")))[1] == f"mine-00/m-{number}"
        assert names(await world.asked(tenant, None)) == ["sim/echo", "mine-00/priced"], "what the price book says"

    asyncio.run(ask())


def test_who_leaves_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_SLICE_SECONDS", -1.0)
    world, offer = World(1), many(50)
    tenant = world.tenant()

    async def leave() -> None:
        first = asyncio.ensure_future(world.asked(tenant, offer))
        second = asyncio.ensure_future(world.asked(tenant, offer))
        for _ in range(10):
            await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(10):
            assert len(names(await second)) == 51

    asyncio.run(leave())


def test_what_is_remembered_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_listing, "_MOST_BYTES", 100_000)
    world, offer = World(1), many(50)

    async def ask() -> None:
        for _ in range(100):
            await world.asked(world.tenant(), offer)
        kept = world.listings._known.values()
        assert len(kept) == 100_000 // len(next(iter(kept)).document)
        assert world.listings._bytes == sum(len(listing.document) for listing in kept)
        monkeypatch.setattr(model_listing, "_MOST_BYTES", 1 << 30)
        for _ in range(100):
            await world.asked(world.tenant(), offer)
        assert len(world.listings._known) == 64

    asyncio.run(ask())


def test_patterns_are_compiled_once_a_project() -> None:
    world = World(1, allowed_models=tuple(f"gpt-{number}-*" for number in range(40)))
    before = resolve._matcher.cache_info().misses
    for number in range(200):
        with pytest.raises(GatewayError):
            world.router.resolve(f"mine-00/other-{number}", world.project, test_key=False)
    assert resolve._matcher.cache_info().misses == before + 1


piece = st.text("ab*?[]!-./|()^$\\n", max_size=6)


@given(st.lists(piece, min_size=1, max_size=4), piece)
def test_patterns_together_match_what_one_of_them_matches(patterns: list[str], name: str) -> None:
    matched = resolve._matcher(tuple(patterns))(name) is not None
    assert matched == any(fnmatchcase(name, pattern) for pattern in patterns)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[%b]}' % b",".join([b'{"id":""}'] * 200_000),
        b'{"data":[{"id":"m","created":[%b]}]}' % b",".join([b"[]"] * 200_000),
    ],
    ids=["very many models", "very much in one"],
)
def test_a_list_that_would_take_long_to_read_is_not_read(body: bytes) -> None:
    assert _read(body, shared=False) is None


def test_a_list_is_read_up_to_a_bound() -> None:
    body = msgspec.json.encode({"data": [{"id": f"m-{number}", "created": None} for number in range(3_000)]})
    offer = _read(body, shared=False)
    assert offer is not None
    assert len(offer.models) == 2_000
