"""Redis stops, hangs, restarts and loses its connections under load: every request is answered, soon, and everything
comes back by itself."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for

# Nothing of ours waits for more than a few times 50 ms: what waited for seconds would not get `more` answers in time.
# This is for one that waits alone; and a busy machine, on which others test too, is not that busy.
LONGEST_SECONDS = 10.0


@dataclass
class Load:
    """Threads that ask two proxies without a pause: most of it known questions, some new ones."""

    gateways: tuple[Gateway, Gateway]
    project: Project
    answers: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(4):
            self._threads.append(threading.Thread(target=self._run, args=(number,)))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 60) -> None:
        """Wait for so many further answers."""
        wanted = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= wanted or self.failures, "answers", within=60)

    def _run(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            text = f"new {thread} {number}" if number % 5 == 0 else f"known {number % 7}"
            began = time.perf_counter()
            try:
                answer = self.gateways[number % 2].chat(self.project.key, text)
            except Exception as error:
                self.failures.append(repr(error))
                return
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.answers.append((answer.status, answer.header("x-watchllm-cache") or ""))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path / "redis")
    yield redis
    redis.stop()


@pytest.fixture
def load(tmp_path: Path, redis: RedisServer, sim: Sim) -> Iterator[Load]:
    environment = {
        **upstream_environment(sim.base_url),
        "WATCHLLM_REDIS_URL": redis.url,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    }
    home = Installation(tmp_path / "one", environment)
    project = home.project("load", settings={"semantic": "off"})
    console, _ = home.start_console()
    gateways = (home.start_proxy(), Installation(tmp_path / "two", environment).start_proxy())
    load = Load(gateways, project)
    load.start()
    load.more()
    yield load
    load.stop()
    for gateway in gateways:
        gateway.stop()
    console.stop()


def _paused(redis: RedisServer, load: Load) -> None:
    redis.pause()
    load.more()
    redis.go_on()


def _killed_and_started_empty(redis: RedisServer, load: Load) -> None:
    redis.kill()
    load.more()
    redis.start()


def _stopped_and_started_at_once(redis: RedisServer, load: Load) -> None:
    redis.stop()
    redis.start()
    load.more()


def _connections_cut(redis: RedisServer, load: Load) -> None:
    for _ in range(5):
        for kind in ("normal", "pubsub"):
            redis.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        load.more(20)


@pytest.mark.parametrize("fault", [_paused, _killed_and_started_empty, _stopped_and_started_at_once, _connections_cut])
def test_requests_are_answered_and_all_comes_back(
    redis: RedisServer, load: Load, fault: Callable[[RedisServer, Load], None]
) -> None:
    fault(redis, load)
    for gateway in load.gateways:
        wait_for(
            lambda gateway=gateway: gateway.get("/health/ready").json()["dependencies"]["redis"] == "ok",  # type: ignore[misc]
            "being in touch again",
        )
    load.more()
    load.stop()
    assert not load.failures
    assert {status for status, _ in load.answers} == {200}
    assert load.slowest < LONGEST_SECONDS
    one, other = load.gateways
    assert one.chat(load.project.key, "after it").status == 200
    known = {"Cache-Control": "only-if-cached"}
    wait_for(lambda: other.chat(load.project.key, "after it", headers=known).status == 200, "it to be shared again")
