"""Limits that several proxies keep together through Redis: exact, and remembered whatever is killed or emptied."""

import base64
import itertools
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.support.admin import dependency_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from watchllm.domain.settings import parse_settings

pytestmark = pytest.mark.usefixtures("one_day")

SLOW = "openai/slow-700ms"


@dataclass
class Fleet:
    """Two hosts with one Redis and one database: `one` and `other` are their proxies, each with a recorder."""

    redis: RedisServer
    homes: tuple[Installation, Installation]
    one: Gateway
    other: Gateway

    @property
    def gateways(self) -> tuple[Gateway, Gateway]:
        return self.one, self.other

    def project(self, **settings: object) -> Project:
        """A project that both proxies know."""
        made = self.homes[0].project(
            "limited", settings={"semantic": "off", **{k: str(v) for k, v in settings.items()}}
        )
        for gateway in self.gateways:
            wait_for(lambda gateway=gateway: gateway.get("/v1/models", made.key).status == 200, "the key to be known")  # type: ignore[misc]
        return made


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
def fleet(tmp_path: Path, sim: Sim, environment: dict[str, str]) -> Iterator[Fleet]:
    redis = RedisServer(tmp_path / "redis")
    common = {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
        "WATCHLLM_DATABASE_URL": f"sqlite:///{tmp_path}/watchllm.db",
        **environment,
    }
    homes = (Installation(tmp_path / "one", common), Installation(tmp_path / "two", common))
    homes[0].project("first")
    recorders = [home.start_recorder() for home in homes]
    one, other = (home.start_proxy() for home in homes)
    fleet = Fleet(redis, homes, one, other)
    yield fleet
    for gateway in fleet.gateways:
        gateway.stop()
    for recorder in recorders:
        recorder.stop()
    redis.stop()


def ask(gateway: Gateway, project: Project, text: str, **fields: object) -> RawResponse:
    return gateway.chat(project.key, text, **fields)


def cost_of(answer: RawResponse) -> float:
    return float(answer.header("x-watchllm-cost-usd") or "nan")


def _served(answer: RawResponse) -> RawResponse | None:
    return answer if answer.status == 200 else None


def code_of(answer: RawResponse) -> str:
    return str(answer.json()["error"]["code"])


def test_requests_a_minute_are_counted_over_all_proxies(fleet: Fleet) -> None:
    project = fleet.project(requests_per_minute=5)
    answers = [ask(fleet.gateways[number % 2], project, "Why?") for number in range(7)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers[:5]] == ["4", "3", "2", "1", "0"]
    refused = answers[-1]
    assert code_of(refused) == "rate_limit_exceeded"
    assert 50 <= int(refused.header("retry-after") or "0") <= 61
    assert answers[0].header("x-ratelimit-reset-requests") in ("1m0s", "1m1s")


def test_many_at_once_use_a_limit_up_and_never_more(fleet: Fleet) -> None:
    project = fleet.project(requests_per_minute=200)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(fleet.gateways[n % 2], project, "the same"), range(300)))
    assert sum(answer.status == 200 for answer in answers) == 200
    assert {answer.status for answer in answers} == {200, 429}


def test_tokens_and_calls_a_minute_are_counted_over_all_proxies(fleet: Fleet) -> None:
    calls = fleet.project(upstream_per_minute=3)
    answers = [ask(fleet.gateways[number % 2], calls, f"call {number}") for number in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    # What is in the cache is answered meanwhile.
    assert ask(fleet.other, calls, "call 0").status == 200
    tokens = fleet.project(tokens_per_minute=300)
    spent = [ask(fleet.gateways[number % 2], tokens, f"call {number}", max_tokens=100) for number in range(6)]
    assert {answer.status for answer in spent} == {200, 429}
    assert spent[0].status == 200
    used = sum(answer.json()["usage"]["total_tokens"] for answer in spent if answer.status == 200)
    assert used <= 300


def test_requests_under_way_are_counted_over_all_proxies_and_those_of_a_killed_one_are_freed(
    fleet: Fleet, sim: Sim
) -> None:
    project = fleet.project(concurrent_requests=2)
    with ThreadPoolExecutor(4) as pool:
        sim.reset()
        under_way = [pool.submit(ask, gateway, project, gateway.base_url, model=SLOW) for gateway in fleet.gateways]
        wait_for(lambda: sim.calls() == 2, "both to be under way")
        refused = ask(fleet.other, project, "third")
        assert (refused.status, code_of(refused)) == (429, "concurrency_exceeded")
        assert [one.result().status for one in under_way] == [200, 200]
        wait_for(lambda: ask(fleet.other, project, "third").status == 200, "a place")
        sim.reset()
        lost = [pool.submit(ask, fleet.one, project, f"lost {number}", model=SLOW) for number in range(2)]
        wait_for(lambda: sim.calls() == 2, "both to be under way")
        fleet.one.process.kill()
        assert ask(fleet.other, project, "third").status == 429
        wait_for(lambda: ask(fleet.other, project, "third").status == 200, "the places to be free", within=10)
        assert [type(one.exception(10)) for one in lost] != [type(None)] * 2


def test_a_monthly_quota_is_counted_over_all_proxies(fleet: Fleet) -> None:
    project = fleet.project(monthly_requests=10)
    asked = itertools.count()

    def next_one() -> RawResponse:
        number = next(asked)
        return ask(fleet.gateways[number % 2], project, f"question {number % 3}")

    # For a moment after it has ended a request may count twice: near the end one may be refused that is served then.
    left = [
        int(wait_for(lambda: _served(next_one()), "a request to be served").header("x-quota-remaining") or "-1")
        for _ in range(10)
    ]
    assert left[0] == 9
    assert all(0 <= told <= really for told, really in zip(left, range(9, -1, -1), strict=True))
    for _ in fleet.gateways:
        # Until its end is told, the last one is under way for the other proxy.
        refused = wait_for(lambda: _used_up(next_one()), "the quota to be used up")
        assert refused.status == 429


def test_many_at_once_on_two_proxies_never_overshoot_a_budget(fleet: Fleet) -> None:
    once = cost_of(ask(fleet.one, fleet.project(), "a question 000", max_tokens=50))
    assert once > 0
    budget = once * 100
    project = fleet.project(budget_usd_month=f"{budget:.9f}")
    with ThreadPoolExecutor(32) as pool:
        answers = list(
            pool.map(lambda n: ask(fleet.gateways[n % 2], project, f"a question {n:03}", max_tokens=50), range(500))
        )
    served = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 429}
    # Each answer's own line was rounded to the micro-dollar, by half of one at most.
    assert sum(map(cost_of, served)) <= budget + 0.51e-6 * len(served)
    assert len(served) >= 50
    codes = {code_of(answer) for answer in answers if answer.status == 429}
    assert codes <= {"concurrency_exceeded", "insufficient_quota"}
    # Now that no call is under way, what is refused in the end is so for good.
    later = itertools.count()

    def is_spent() -> bool:
        answer = ask(fleet.one, project, f"later {next(later):03}", max_tokens=50)
        return answer.status == 429 and code_of(answer) == "insufficient_quota"

    wait_for(is_spent, "the budget to be spent", within=30)


@pytest.mark.parametrize(("how", "patience"), [(signal.SIGTERM, 1), (signal.SIGKILL, 10)])
def test_what_a_proxy_has_used_is_known_after_it_has_ended(fleet: Fleet, how: int, patience: float) -> None:
    project = fleet.project(monthly_requests=5)
    for number in range(3):
        assert ask(fleet.one, project, f"question {number}").status == 200
    fleet.one.process.signal(how)
    fleet.one.process.wait()
    # What a killed one held counts, even beside the record of its use, until its recorder has closed what it left open.
    for text in ("more", "more again"):
        wait_for(
            lambda text=text: ask(fleet.other, project, text).status == 200,  # type: ignore[misc]
            "what is left of it",
            within=patience,
        )
    assert ask(fleet.other, project, "one too many").status == 429
    fleet.one = fleet.homes[0].start_proxy()
    # Until its recorder has found its journal it says that it does not know.
    assert wait_for(lambda: _known(ask(fleet.one, project, "again")), "what is left to be known").status == 429


def test_what_was_used_is_known_again_after_redis_was_emptied(fleet: Fleet) -> None:
    project = fleet.project(monthly_requests=6)
    assert [ask(gateway, project, "one").status for gateway in (*fleet.gateways, fleet.one)] == [200] * 3
    fleet.redis.command("FLUSHALL")
    answers = []
    wait_for(lambda: answers.append(ask(fleet.other, project, "one")) or answers[-1].status == 429, "the quota to end")  # type: ignore[func-returns-value]
    assert {answer.status for answer in answers} <= {200, 429, 503, 401}
    assert sum(answer.status == 200 for answer in answers) == 3
    assert ask(fleet.one, project, "one").status == 429


def test_a_budget_that_is_set_later_counts_what_was_spent_before(fleet: Fleet) -> None:
    project = fleet.project()
    spent = sum(cost_of(ask(fleet.one, project, f"question {number}")) for number in range(3))
    with fleet.homes[0].control_plane() as plane:
        plane.set_project(project.id, parse_settings({"budget_usd_total": f"{spent:.9f}"}))
    refused = wait_for(lambda: _refused(ask(fleet.one, project, "one more")), "the change to be known")
    assert code_of(refused) == "insufficient_quota"


def _used_up(answer: RawResponse) -> RawResponse | None:
    assert answer.status == 429
    return answer if code_of(answer) == "quota_exceeded" else None


def _known(answer: RawResponse) -> RawResponse | None:
    return answer if answer.status != 503 else None


def _refused(answer: RawResponse) -> RawResponse | None:
    return answer if answer.status == 429 else None


def test_several_proxies_on_one_home_share_its_limits(fleet: Fleet) -> None:
    project = fleet.project(requests_per_minute=3, monthly_requests=10)
    third = fleet.homes[0].start_proxy()
    try:
        answers = [ask(gateway, project, "Why?") for gateway in (*fleet.gateways, third, fleet.one)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert 5 <= int(answers[2].header("x-quota-remaining") or "0") <= 7  # Two may count twice for a moment.
    finally:
        third.stop()


def test_limits_that_cannot_be_asked_for_are_told(fleet: Fleet) -> None:
    project = fleet.project(requests_per_minute=12)
    assert [ask(gateway, project, "Why?").status for gateway in (*fleet.gateways, fleet.one)] == [200, 200, 200]
    fleet.redis.stop()
    # Each has half of it, and of what is used already it counts half; one more may be left of a slice.
    answers = [ask(fleet.one, project, "Why?").status for _ in range(6)]
    assert answers in ([200] * 4 + [429] * 2, [200] * 5 + [429])
    assert "its share of the limits" in (dependency_of(fleet.one, "limits") or "")
    fleet.redis.start()
    wait_for(lambda: "limits" not in fleet.one.get("/health/ready").json()["dependencies"], "being in touch again")


def test_an_account_that_is_kept_does_not_expire(fleet: Fleet) -> None:
    project = fleet.project(monthly_requests=100, budget_usd_total=5)
    for gateway in fleet.gateways:
        assert ask(gateway, project, "Why?").status == 200
    with redis.Redis.from_url(fleet.redis.url) as client:
        accounts = [
            key for key in client.scan_iter("*") if client.type(key) == b"hash" and client.hexists(key, "ready")
        ]
        assert len(accounts) == 1
        assert client.pttl(accounts[0]) == -1


def test_what_redis_brings_back_from_before_revives_no_key_and_no_quota(fleet: Fleet, tmp_path: Path) -> None:
    revoked, used_up = fleet.project(), fleet.project(monthly_requests=4)
    console, _ = fleet.homes[0].start_console()
    fleet.redis.command("SAVE")
    assert [ask(gateway, used_up, "one").status for gateway in fleet.gateways * 2] == [200] * 4
    with fleet.homes[0].control_plane() as plane:
        plane.revoke_key(plane.keys(revoked.id)[0].id)
    fleet.redis.kill()
    fleet.redis.start(empty=False)
    # It has no copy of its own, and Redis' is of the past.
    third = Installation(tmp_path / "three", fleet.homes[0].environment)
    gateway, recorder = third.start_proxy(), third.start_recorder()
    try:
        statuses = []
        wait_for(lambda: statuses.append(ask(gateway, used_up, "one").status) or statuses[-1] == 429, "the quota")  # type: ignore[func-returns-value]
        assert set(statuses) <= {429, 503}
        assert [ask(each, used_up, "one").status for each in fleet.gateways] == [429, 429]
        assert {each.get("/v1/models", revoked.key).status for each in (*fleet.gateways, gateway)} == {401}
        with fleet.homes[0].control_plane() as plane:
            plane.revoke_key(plane.keys(used_up.id)[0].id)
        wait_for(lambda: gateway.get("/v1/models", used_up.key).status == 401, "a change to be published")
    finally:
        gateway.stop()
        recorder.stop()
        console.stop()
