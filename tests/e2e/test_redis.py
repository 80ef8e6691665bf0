"""Proxies on several hosts with one Redis: the same keys, the same answers, and what is forgotten everywhere."""

import base64
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from tests.support.admin import dependency_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.redis_server import RedisServer
from tests.support.semantic import LIKE, QUESTION, serving, wait_until_warm
from tests.support.waiting import wait_for

# The provider behind `openai` is the simulator, to whom this says how long to take.
SLOW = "openai/slow-700ms"


@dataclass
class Fleet:
    """Two hosts: `one` has the database and publishes, `other` runs a proxy only."""

    redis: RedisServer
    installation: Installation
    one: Gateway
    other: Gateway
    project: Project


@pytest.fixture
def fleet(tmp_path: Path, sim: Sim) -> Iterator[Fleet]:
    redis = RedisServer(tmp_path / "redis")
    environment = {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    }
    home = Installation(tmp_path / "one", environment)
    project = home.project("shared", settings={"semantic": "off"})
    one = home.start_proxy()
    other = Installation(tmp_path / "two", environment).start_proxy()
    yield Fleet(redis, home, one, other, project)
    for gateway in (one, other):
        gateway.stop()
    redis.stop()


def dependency(gateway: Gateway, name: str) -> str:
    return str(dependency_of(gateway, name))


def test_an_answer_stored_by_one_proxy_is_a_hit_at_every_other(fleet: Fleet, sim: Sim) -> None:
    first = fleet.one.chat(fleet.project.key, "what is shared?")
    assert (first.status, first.header("x-watchllm-cache")) == (200, "MISS")
    second = wait_for(
        lambda: _hit(fleet.other, fleet.project, "what is shared?", only=True), "the other proxy to find it"
    )
    assert second.body == first.body
    assert second.header("x-watchllm-cost-usd") == "0.000000"
    streamed = fleet.other.chat(fleet.project.key, "what is shared?", stream=True)
    assert streamed.header("x-watchllm-cache") == "HIT"
    assert streamed.body.rstrip().endswith(b"data: [DONE]")


def test_a_proxy_that_starts_finds_answers_from_its_first_request_on(fleet: Fleet, tmp_path: Path) -> None:
    fleet.one.chat(fleet.project.key, "known before")
    wait_for(lambda: _hit(fleet.other, fleet.project, "known before"), "it to be stored")
    fleet.other.stop()
    again = fleet.other.installation.start_proxy(wait=False)
    only = {"Cache-Control": "only-if-cached"}

    def first_answer() -> int:
        try:
            return again.chat(fleet.project.key, "known before", headers=only).status
        except OSError:
            return 0

    assert wait_for(first_answer, "the first answer") == 200
    again.stop()


def test_a_change_is_in_force_on_every_proxy(fleet: Fleet) -> None:
    with fleet.installation.control_plane() as plane:
        made = plane.create_key(fleet.project.id)
    key = made.secret
    assert fleet.one.chat(key, "hello").status == 200  # This host's at once.
    wait_for(lambda: fleet.other.chat(key, "hello").status == 200, "the key to be known", within=1.0)
    with fleet.installation.control_plane() as plane:
        plane.revoke_key(made.record.id)
    assert fleet.one.chat(key, "hello").status == 401
    wait_for(lambda: fleet.other.chat(key, "hello").status == 401, "the key to be refused", within=1.0)


def test_an_invalidation_reaches_every_proxy(fleet: Fleet, sim: Sim) -> None:
    key = fleet.installation.key(fleet.project.id, scopes=("inference", "cache:write"))
    wait_for(lambda: fleet.other.chat(key, "hello").status == 200, "the key to be known")
    for gateway in (fleet.one, fleet.other):
        wait_for(lambda gateway=gateway: _hit(gateway, fleet.project, "hello"), "a hit")  # type: ignore[misc]
    answer = fleet.one.post("/v1/cache/invalidate", key, {"all": True})
    assert (answer.status, answer.json()["invalidated"]) == (200, 1)
    wait_for(lambda: not _hit(fleet.other, fleet.project, "hello", only=True), "it to be forgotten", within=1.0)
    assert fleet.one.get("/v1/cache/stats", key).json()["entries"] == 0


def test_embeddings_are_found_item_by_item(fleet: Fleet, sim: Sim) -> None:
    def embed(gateway: Gateway, *texts: str) -> str | None:
        body = {"model": "text-embedding-3-small", "input": list(texts)}
        answer = gateway.post("/v1/embeddings", fleet.project.key, body)
        assert answer.status == 200, answer
        return answer.header("x-watchllm-cache")

    many = [f"text {number}" for number in range(150)]
    assert embed(fleet.one, *many) == "MISS"
    wait_for(lambda: embed(fleet.other, *many) == "HIT", "all of them to be known")
    assert embed(fleet.other, *many, "a new one") == "HIT-PARTIAL"


def test_while_redis_is_gone_requests_are_answered_and_it_is_told(fleet: Fleet, sim: Sim) -> None:
    wait_for(lambda: _hit(fleet.other, fleet.project, "hello"), "a hit")
    assert dependency(fleet.other, "redis") == "ok"
    key = fleet.installation.key(fleet.project.id, scopes=("inference", "cache:write"))
    for gateway in (fleet.one, fleet.other):
        wait_for(lambda gateway=gateway: gateway.chat(key, "hello").status == 200, "the key to be known")  # type: ignore[misc]
    fleet.redis.stop()
    for gateway in (fleet.one, fleet.other):
        for number in range(5):
            assert gateway.chat(fleet.project.key, f"while it is gone {number}").status == 200
        wait_for(lambda gateway=gateway: "cannot be reached since" in dependency(gateway, "redis"), "being told")  # type: ignore[misc]
        assert gateway.get("/health/ready").status == 200
        assert str(fleet.redis.port) in dependency(gateway, "redis")
        assert str(fleet.redis.port) not in gateway.get("/health/ready").body.decode()
        invalidated = gateway.post("/v1/cache/invalidate", key, {"all": True})
        assert invalidated.status == 503
        assert str(fleet.redis.port) not in invalidated.body.decode()
        wait_for(lambda gateway=gateway: "the last copy serves since" in dependency(gateway, "snapshot"), "that, too")  # type: ignore[misc]
    fleet.redis.start()
    with fleet.installation.control_plane() as plane:
        assert plane.publisher.publish_all()  # It came back empty.
    wait_for(lambda: dependency(fleet.other, "snapshot") == "ok", "it to be followed again")
    wait_for(lambda: dependency(fleet.other, "redis") == dependency(fleet.one, "redis") == "ok", "both to be in touch")
    # Not one twice, which the other may have at hand, and Redis has not: what could not be stored is not stored later.
    numbers = itertools.count()

    def is_shared() -> object:
        text = f"hello again {next(numbers)}"
        assert fleet.other.chat(fleet.project.key, text).status == 200
        return _hit(fleet.one, fleet.project, text, only=True)

    wait_for(is_shared, "answers to be kept again, and found")


def _hit(gateway: Gateway, project: Project, text: str, *, only: bool = False) -> object:
    """The answer, if it came from the cache; with `only`, without asking upstream."""
    answer = gateway.chat(project.key, text, headers={"Cache-Control": "only-if-cached"} if only else None)
    assert answer.status == 200 or only, answer
    return answer if answer.header("x-watchllm-cache") == "HIT" else None


def test_one_question_is_one_call_over_all_proxies(fleet: Fleet, sim: Sim) -> None:
    sim.reset()
    before = sim.calls()

    def ask(number: int) -> RawResponse:
        gateway = (fleet.one, fleet.other)[number % 2]
        return gateway.chat(fleet.project.key, "slow one", stream=number >= 6, model=SLOW)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert sim.calls() - before == 1
    assert [answer.status for answer in answers] == [200] * 12
    outcomes = sorted(answer.header("x-watchllm-cache") or "" for answer in answers)
    assert outcomes.count("MISS") == 1
    assert set(outcomes) <= {"MISS", "HIT-COALESCED", "HIT"}


def test_who_waits_for_a_process_that_dies_calls_by_itself(fleet: Fleet, sim: Sim) -> None:
    sim.reset()
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(fleet.one.chat, fleet.project.key, "lost", model=SLOW)
        wait_for(lambda: sim.calls() == 1, "the first call")
        waiting = pool.submit(fleet.other.chat, fleet.project.key, "lost", model=SLOW)
        wait_for(lambda: b":1" in fleet.redis.command("EXISTS", _waited_for(fleet)), "the other to wait")
        assert sim.calls() == 1
        fleet.one.process.kill()
        assert waiting.result(20).status == 200
        assert lost.exception(20) is not None
    assert sim.calls() == 2


def _waited_for(fleet: Fleet) -> bytes:
    """The key that says that somebody waits for a call of another process."""
    return next((key for key in fleet.redis.command("KEYS", "*:w:*").split(b"\r\n") if b":w:" in key), b"none")


def test_commands_see_and_forget_what_is_shared(fleet: Fleet) -> None:
    wait_for(lambda: _hit(fleet.other, fleet.project, "hello"), "a hit")
    rows = fleet.installation.run_json("cache", "stats", "--project", fleet.project.id)["projects"]
    assert [(row["keys"], row["entries"]) for row in rows] == [("live", 1), ("test", 0)]
    assert fleet.installation.run_json("cache", "purge", "--project", fleet.project.id)["invalidated"] == 1
    wait_for(lambda: not _hit(fleet.other, fleet.project, "hello", only=True), "it to be forgotten", within=1.0)


def test_the_url_is_shown_without_its_password_and_its_server_is_examined(fleet: Fleet, tmp_path: Path) -> None:
    url = fleet.redis.url.replace("redis://", "redis://default:hunter22@")
    other = Installation(fleet.installation.home, {**fleet.installation.environment, "WATCHLLM_REDIS_URL": url})
    shown = other.run("config", "show").stdout
    assert "default:***@127.0.0.1" in shown
    assert "hunter22" not in shown
    checks = fleet.installation.run("doctor", check=False).stdout
    assert f"127.0.0.1:{fleet.redis.port}" in checks
    assert "volatile" in checks  # Its policy lets it refuse to store when its memory is full.
    fleet.redis.stop()
    failed = other.run("doctor", check=False)
    assert failed.returncode != 0
    assert "cannot be used" in failed.stdout
    assert "hunter22" not in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr


def test_changes_while_redis_is_gone_are_saved_and_published_later(fleet: Fleet) -> None:
    fleet.redis.stop()
    refused = fleet.installation.run("project", "create", "later", check=False)
    assert refused.returncode == 1
    assert "the change is saved" in refused.stderr
    assert "Traceback" not in refused.stderr
    # A whole start without it serves, too.
    with_console, _ = fleet.installation.start_console()
    fleet.redis.start()
    with fleet.installation.control_plane() as plane:
        made = plane.projects()[-1]
        key = plane.create_key(made.id).secret
    assert made.name == "later"
    wait_for(lambda: fleet.other.chat(key, "hello").status == 200, "it to be published")
    with_console.stop()


def test_a_key_that_is_made_while_redis_is_gone_is_shown_all_the_same(fleet: Fleet) -> None:
    """Nobody would see it ever again."""
    fleet.redis.stop()
    made = fleet.installation.run("key", "create", "--project", fleet.project.id, "--json", check=False)
    assert (made.returncode, "the change is saved" in made.stderr) == (1, True)
    told = f"the key {json.loads(made.stdout)['id']} exists and is shown above; it is not published yet"
    assert told in made.stderr
    with_console, port = fleet.installation.start_console()
    token = fleet.installation.run("token", "create").stdout.strip()
    by_api = httpx.post(
        f"http://127.0.0.1:{port}/api/projects/{fleet.project.id}/keys",
        json={},
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    assert by_api.status_code == 201
    documents = [json.loads(made.stdout), by_api.json()]
    assert [document["published"] for document in documents] == [False, False]
    fleet.redis.start()
    for document in documents:
        key = document["key"]
        wait_for(lambda key=key: fleet.other.chat(key, "hello").status == 200, "it to be published")  # type: ignore[misc]
    with_console.stop()


def test_a_like_question_is_answered_from_redis(fleet: Fleet, sim: Sim) -> None:
    project = serving(fleet.one)
    assert fleet.one.chat(project.key, "hello").status == 200  # The first that asks has the engine loaded.
    wait_until_warm(fleet.one)
    first = fleet.one.chat(project.key, QUESTION)
    assert first.status == 200
    assert fleet.one.chat(project.key, LIKE).header("x-watchllm-cache") == "HIT-SEMANTIC"
    # Another process of this host has the vectors, and nothing at hand of the answers.
    fleet.one.stop()
    again = wait_until_warm(fleet.installation.start_proxy())
    try:
        before = sim.calls()
        like = again.chat(project.key, LIKE)
        assert like.header("x-watchllm-cache") == "HIT-SEMANTIC"
        assert like.json() == first.json()
        assert sim.calls() == before
    finally:
        again.stop()


def test_a_redis_that_was_full_is_well_again_when_it_takes_an_answer(fleet: Fleet, sim: Sim) -> None:
    with redis.Redis(port=fleet.redis.port) as server:
        server.config_set("maxmemory-policy", "noeviction")
        server.config_set("maxmemory", "1mb")
        assert fleet.one.chat(fleet.project.key, "is there room?").status == 200
        wait_for(lambda: "OOM" in dependency(fleet.one, "cache"), "the refusal to be told")
        assert fleet.one.get("/health/ready").json()["dependencies"]["cache"] == "degraded"
        server.config_set("maxmemory", "0")
    assert fleet.one.chat(fleet.project.key, "and now?").status == 200
    wait_for(lambda: dependency(fleet.one, "cache") == "ok", "it to be well again")
