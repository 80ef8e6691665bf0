"""Issue 6, "Priority by tier": who waits for a call upstream, who goes first, who is shed, and what is told of it."""

import asyncio
from collections import Counter

import pytest

from tests.support.coalescing import error_code
from tests.support.inside import inside, run, until
from tests.support.priority import queued, saturated, texts, timing, waiting
from tests.support.product import Installation, Project
from watchllm.limits.tiers import TIERS
from watchllm.proxy.slot_metrics import slot_metrics


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("priority") / "home")


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("own")


@pytest.fixture
def tiers(home: Installation) -> dict[str, Project]:
    """A project of each tier, in an organization of its own with a plan without limits."""
    plans = [f'[{tier.name}-unlimited]\ntier = "{tier.name}"\n' for tier in TIERS]
    home.home.mkdir(mode=0o700, exist_ok=True)
    (home.home / "plans.toml").write_text("".join(plans))
    projects = {}
    for tier in TIERS:
        with home.control_plane() as plane:
            organization = plane.create_organization(tier.name, {"plan": f"{tier.name}-unlimited"})
        projects[tier.name] = home.project(tier.name, organization=organization.id)
    return projects


# --- who goes first ---------------------------------------------------------------------------------------------------


def test_the_turns_go_by_the_tiers_weights(home: Installation, tiers: dict[str, Project]) -> None:
    async def test() -> None:
        async with inside(home, tiers["pro"], max_upstream=1) as pair:
            first = await saturated(pair)
            asked = []
            for number in range(20):
                for tier in ("free", "starter", "pro"):
                    asked.append(await queued(pair, f"{tier} {number}", key=tiers[tier].key))
            await pair.steps.release(22)
            await until(lambda: pair.calls == 23, "22 answered and one more under way")
            turns = texts(pair)[1:22]
            shares = Counter(text.split()[0] for text in turns)
            assert shares == {"pro": 12, "starter": 6, "free": 3}
            for tier in shares:
                numbers = [int(text.split()[1]) for text in turns if text.startswith(tier)]
                assert numbers == sorted(numbers), "first come first served within a project"
            pair.steps.release_all()
            assert {answer.status for answer in await asyncio.gather(first, *asked)} == {200}

    run(test())


def test_within_a_tier_a_project_that_floods_does_not_keep_another_from_its_turn(
    home: Installation, project: Project
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            flood = [await queued(pair, f"flood {number}") for number in range(30)]
            other = await queued(pair, "other", key=home.project("other").key)
            await pair.steps.release(2)
            await until(lambda: pair.calls == 3, "two answered and one more under way")
            assert "other" in texts(pair)[1:3]
            pair.steps.release_all()
            assert {answer.status for answer in await asyncio.gather(first, other, *flood)} == {200}

    run(test())


def test_no_more_calls_are_under_way_than_there_are_slots(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=3) as pair:
            asked = [pair.ask(f"question {number}", stream=number % 2 == 0) for number in range(20)]
            await until(lambda: pair.calls == 3 and waiting(pair) == 17, "three calls, the others waiting")
            pair.steps.release_all()
            assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
            assert pair.sim.ledger.peak_open == 3

    run(test())


# --- who does not wait ------------------------------------------------------------------------------------------------


def test_an_answer_from_the_cache_does_not_wait(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            known = pair.ask("known")
            await pair.steps.release()
            await known
            pair.sim.ledger.clear()
            first = await saturated(pair)
            second = await queued(pair, "waits")
            hit = await pair.ask("known")
            assert hit.header("x-watchllm-cache") == "HIT"
            assert "queue" not in timing(hit)
            pair.steps.release_all()
            await asyncio.gather(first, second)

    run(test())


def test_who_asks_what_waits_already_takes_no_place_of_its_own(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1, max_queued=1) as pair:
            first = await saturated(pair)
            leader = await queued(pair, "the same")
            joined = [pair.ask("the same") for _ in range(5)]
            await pair.all_wait(7)
            assert waiting(pair) == 1
            pair.steps.release_all()
            answers = await asyncio.gather(leader, *joined)
            assert pair.calls == 2
            assert [answer.header("x-watchllm-cache") for answer in answers] == ["MISS"] + ["HIT-COALESCED"] * 5
            for answer in answers:
                assert 0 < timing(answer)["queue"] <= timing(answer)["total"]
            await first

    run(test())


def test_who_joins_a_purchase_of_embeddings_that_waits_waits_with_it(home: Installation, project: Project) -> None:
    body = {"model": "text-embedding-3-small", "input": ["a text"]}

    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            buyer = await queued(pair, "", path="/v1/embeddings", body=body)
            joins = pair.ask("", path="/v1/embeddings", body=body)
            await until(lambda: pair.buying == 2, "both waiting")
            assert waiting(pair) == 1
            pair.steps.release_all()
            answers = await asyncio.gather(buyer, joins)
            assert [answer.header("x-watchllm-cache") for answer in answers] == ["MISS", "HIT-COALESCED"]
            for answer in answers:
                spans = timing(answer)
                assert spans["queue"] > 0
                assert spans["queue"] + spans.get("upstream", 0.0) <= spans["total"]
                overhead = float(answer.header("x-watchllm-overhead-ms") or 0)
                assert overhead >= spans["queue"]
            await first

    run(test())


def test_time_in_the_queue_is_overhead_and_not_upstream(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            behind = await queued(pair, "behind")
            pair.steps.release_all()
            at_once, waited = await asyncio.gather(first, behind)
            assert "queue" not in timing(at_once)
            spans = timing(waited)
            assert spans["queue"] > 0
            assert spans["queue"] + spans["upstream"] <= spans["total"]
            overhead = float(waited.header("x-watchllm-overhead-ms") or 0)
            assert spans["queue"] <= overhead
            assert overhead + spans["upstream"] == pytest.approx(spans["total"], abs=0.01)
            await pair.all_settled()
            event = pair.events[-1]
            assert event.overhead_us >= int(spans["queue"] * 1000) - 1

    run(test())


# --- who is shed ------------------------------------------------------------------------------------------------------


def test_when_the_queue_is_full_the_newest_of_the_lowest_tier_goes(
    home: Installation, tiers: dict[str, Project]
) -> None:
    async def test() -> None:
        async with inside(home, tiers["pro"], max_upstream=1, max_queued=6) as pair:
            first = await saturated(pair)
            of_free = [await queued(pair, f"free {number}", key=tiers["free"].key) for number in range(3)]
            of_starter = [await queued(pair, f"starter {number}", key=tiers["starter"].key) for number in range(3)]
            of_pro = pair.ask("pro", key=tiers["pro"].key)
            shed = await of_free[-1]
            assert shed.status == 429
            assert error_code(shed) == "overloaded_tier"
            assert 1 <= int(shed.header("retry-after") or 0) <= 60
            assert timing(shed)["queue"] > 0
            assert waiting(pair) == 6
            refused = await pair.ask("late", key=tiers["free"].key)
            assert (refused.status, error_code(refused)) == (429, "overloaded_tier")
            pair.steps.release_all()
            answers = await asyncio.gather(first, *of_free[:-1], *of_starter, of_pro)
            assert {answer.status for answer in answers} == {200}
            await pair.all_settled()
            errors = [(event.status, event.error, event.attempts) for event in pair.events if event.error]
            assert errors == [(429, "overloaded_tier", ())] * 2
            assert "late" not in texts(pair)

    run(test())


def test_who_has_no_higher_tier_above_it_is_told_that_the_gateway_is_overloaded(
    home: Installation, project: Project
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1, max_queued=2) as pair:
            first = await saturated(pair)
            second = await queued(pair, "waits")
            refused = await pair.ask("one too many")
            assert (refused.status, error_code(refused)) == (503, "overloaded")
            assert refused.header("retry-after")
            pair.steps.release_all()
            assert {answer.status for answer in await asyncio.gather(first, second)} == {200}

    run(test())


def test_nobody_waits_longer_than_the_queue_allows(home: Installation, tiers: dict[str, Project]) -> None:
    async def test() -> None:
        async with inside(home, tiers["free"], max_upstream=1, queue_timeout=1.0) as pair:
            first = await saturated(pair)
            leader, joined = await queued(pair, "waits in vain"), pair.ask("waits in vain")
            for answer in await asyncio.gather(leader, joined):
                assert (answer.status, error_code(answer)) == (429, "overloaded_tier")
                assert timing(answer)["queue"] > 0
                assert "upstream" not in timing(answer)
            pair.steps.release_all()
            assert (await first).status == 200
            assert pair.calls == 1

    run(test())


# --- what operators see -----------------------------------------------------------------------------------------------


def test_operators_see_who_waits_how_long_and_who_was_refused(home: Installation, tiers: dict[str, Project]) -> None:
    async def test() -> None:
        async with inside(home, tiers["pro"], max_upstream=1, max_queued=4) as pair:
            first = await saturated(pair)
            others = [await queued(pair, f"pro {number}", key=tiers["pro"].key) for number in range(2)]
            assert (await pair.ask("pro again", key=tiers["pro"].key)).status == 429
            seen = slot_metrics(pair.services.slots)
            for line in (
                "watchllm_upstream_calls 1",
                "watchllm_upstream_slots 1",
                'watchllm_queue_waiting{tier="pro"} 2',
                'watchllm_queue_waiting{tier="free"} 0',
                'watchllm_queue_refused_total{tier="pro",code="overloaded_tier"} 1',
            ):
                assert line in "\n".join(seen).splitlines()
            pair.steps.release_all()
            await asyncio.gather(first, *others)
            seen = slot_metrics(pair.services.slots)
            assert 'watchllm_queue_wait_seconds_count{tier="pro"} 2' in seen
            assert 'watchllm_queue_wait_seconds_bucket{tier="pro",le="+Inf"} 2' in seen
            assert 'watchllm_queue_waiting{tier="pro"} 0' in seen

    run(test())
