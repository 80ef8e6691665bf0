"""Exact stores of every adapter, with a clock that only the test moves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.exact_store import (
    ADAPTERS,
    MAX_BYTES,
    Clock,
    Opener,
)
from tests.support.redis_server import RedisServer
from watchllm.cache.entry import ExactStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A server for the tests of the adapter that needs one; it outlives the stores that are opened in it."""
    if "redis" not in getattr(request.node, "callspec", SimpleNamespace(params={})).params.values():
        yield
        return
    server = RedisServer(tmp_path / "redis-server", "--maxmemory", str(MAX_BYTES), "--maxmemory-policy", "volatile-lru")
    (tmp_path / "redis.url").write_text(server.url)
    yield
    server.stop()


@pytest.fixture(params=sorted(ADAPTERS))
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    opened: list[ExactStore] = []

    def opener(max_bytes: int = MAX_BYTES) -> ExactStore:
        opened.append(ADAPTERS[request.param](tmp_path, max_bytes, clock))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Opener) -> ExactStore:
    return open_store()


@pytest.fixture(params=["pending", "committed"])
def settle(request: pytest.FixtureRequest, store: ExactStore) -> Callable[[], None]:
    """Run a test twice: with what was put still pending (or nearly so), and with it committed."""
    return store.flush if request.param == "committed" else lambda: None
