"""Two hosts of two workers each, on one Redis and one PostgreSQL, keep a limit as one process does: to the last one."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.postgres import SECRET_KEY, Connected
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import ConnectionClosed, RawResponse
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.support.workers import called

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc"),
    pytest.mark.usefixtures("one_day"),
]


@dataclass
class Fleet:
    """`hosts` are two `watchllm up --workers 2`, each on a home of its own."""

    redis: RedisServer
    hosts: tuple[Gateway, Gateway]

    def project(self, **settings: object) -> Project:
        """A project that every worker knows."""
        values = {"semantic": "off", **{name: str(value) for name, value in settings.items()}}
        made = self.hosts[0].installation.project("limited", settings=values)
        for host in self.hosts:
            # Each request is on a connection of its own, which may come to either worker.
            wait_for(lambda host=host: _known(host, made.key), "the key to be known")  # type: ignore[misc]
        return made


def _known(host: Gateway, key: str) -> bool:
    return all(host.get("/v1/models", key).status == 200 for _ in range(20))


@pytest.fixture
def fleet(tmp_path: Path, sim: Sim, empty_database: Connected) -> Iterator[Fleet]:
    redis = RedisServer(tmp_path / "redis")
    common = {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_DATABASE_URL": empty_database.url,
        "WATCHLLM_SECRET_KEY": SECRET_KEY,
    }
    homes = [Installation(tmp_path / name, dict(common)) for name in ("one", "two")]
    homes[0].project("first")
    hosts = [home.start_up("--workers", "2", "--no-console") for home in homes]
    for host in hosts:
        wait_for(lambda host=host: len(called(host.process, "proxy")) == 2, "two workers")  # type: ignore[misc]
    yield Fleet(redis, (hosts[0], hosts[1]))
    for host in hosts:
        host.stop()
    redis.stop()


def ask(host: Gateway, project: Project, text: str, **fields: object) -> RawResponse | None:
    """The answer; None where the worker was killed before there was one."""
    try:
        return host.chat(project.key, text, **fields)
    except (OSError, ConnectionClosed):
        return None


def asked_at_once(fleet: Fleet, project: Project, count: int, **fields: object) -> list[RawResponse]:
    def one(number: int) -> RawResponse | None:
        return ask(fleet.hosts[number % 2], project, f"question {number % 9}", **fields)

    with ThreadPoolExecutor(16) as pool:
        return [answer for answer in pool.map(one, range(count)) if answer is not None]


def test_a_minutes_requests_are_used_up_to_the_last_and_no_more(fleet: Fleet) -> None:
    project = fleet.project(requests_per_minute=150)
    assert Counter(answer.status for answer in asked_at_once(fleet, project, 260)) == {200: 150, 429: 110}


def test_a_quota_is_used_up_to_the_last_request_whatever_is_killed_or_emptied(
    fleet: Fleet, empty_database: Connected
) -> None:
    project = fleet.project(monthly_requests=200)
    answers = asked_at_once(fleet, project, 60)
    assert [answer.status for answer in answers] == [200] * 60
    # Nothing is under way, so that what is served can be counted here.
    os.kill(called(fleet.hosts[0].process, "proxy")[0], signal.SIGKILL)
    wait_for(lambda: len(called(fleet.hosts[0].process, "proxy")) == 2, "another worker")
    answers += asked_at_once(fleet, project, 60)
    fleet.redis.command("FLUSHALL")

    def served() -> int:
        return sum(answer.status == 200 for answer in answers)

    def is_used_up() -> bool:
        answers.extend(asked_at_once(fleet, project, 20))
        return served() >= 200

    # Near the end one may be refused that is served a moment later, never the other way round.
    wait_for(is_used_up, "the quota to be used up", within=30)
    answers.extend(asked_at_once(fleet, project, 40))
    assert served() == 200
    # 401: the emptied Redis has no keys either, for a moment.
    assert {answer.status for answer in answers} <= {200, 401, 429, 503}
    query = f"SELECT requests FROM watchllm.spending WHERE subject = '{project.id}' AND period = 'total'"
    wait_for(lambda: empty_database.execute(query) == [(200,)], "all of it to be recorded")


def test_a_budget_is_never_overspent(fleet: Fleet) -> None:
    def at_once(project: Project) -> list[RawResponse]:
        def one(number: int) -> RawResponse | None:
            return ask(fleet.hosts[number % 2], project, f"a question {number:03}", max_tokens=50)

        with ThreadPoolExecutor(16) as pool:
            return [answer for answer in pool.map(one, range(150)) if answer is not None]

    once = _cost(fleet.hosts[0].chat(fleet.project().key, "a question 000", max_tokens=50))
    budget = once * 40
    answers = at_once(fleet.project(budget_usd_month=f"{budget:.9f}"))
    served = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 429}
    assert sum(map(_cost, served)) <= budget
    assert len(served) >= 20


def _cost(answer: RawResponse) -> float:
    return float(answer.header("x-watchllm-cost-usd") or "nan")
