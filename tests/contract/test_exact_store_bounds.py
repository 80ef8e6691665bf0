"""An exact store is bounded in bytes: what goes first, and whose share is kept (CONTRACT.md, section 6).

In Redis that is Redis' own affair (`maxmemory` and its policy), and nothing of ours to be tested.
"""

import pytest

from tests.support.exact_store import (
    Clock,
    Opener,
    entry,
    key,
    project,
    stats,
)
from tests.support.waiting import wait_for

pytestmark = pytest.mark.parametrize("open_store", ["lmdb"], indirect=True)


def test_the_bound_holds_and_the_least_recently_used_go_first(open_store: Opener, clock: Clock) -> None:
    limit = 4 << 20
    store = open_store(limit)
    body = b"x" * 1000
    for number in range(500):
        store.put(project(1), key(number), entry(clock(), body=body, ttl_ms=None), clock())
        if number % 100 == 99:
            store.flush()
    for number in range(100):
        assert store.get(project(1), key(number)) is not None
    for number in range(500, 3000):
        store.put(project(1), key(number), entry(clock(), body=body, ttl_ms=None), clock())
        if number % 100 == 99:
            store.flush()
            assert stats(store, project(1)).bytes <= limit
            for hot in range(100):
                store.get(project(1), key(hot))
    kept = {number for number in range(3000) if store.get(project(1), key(number))}
    assert len(kept & set(range(100))) >= 90, "what is used all the time stays"
    assert not kept & set(range(100, 1000)), "what was not used goes"
    assert len(kept & set(range(2500, 3000))) >= 490, "what is new stays"


def test_another_projects_traffic_cannot_push_a_project_below_its_share(open_store: Opener, clock: Clock) -> None:
    store = open_store(4 << 20)
    for number in range(200):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()
    for number in range(6000):
        store.put(project(2), key(number), entry(clock(), body=b"y" * 1000, ttl_ms=None), clock())
        if number % 500 == 499:
            store.flush()
    assert stats(store, project(1)).entries == 200
    assert stats(store, project(2)).entries > 500


def test_expired_entries_go_before_entries_in_use(open_store: Opener, clock: Clock) -> None:
    store = open_store(4 << 20)
    for number in range(200):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()
    for number in range(200, 400):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=1000), clock())
    store.flush()
    clock.advance(2000)
    for number in range(2000, 2000 + 1400):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()

    def expired_left() -> int:
        return sum(store.get(project(1), key(number)) is not None for number in range(200, 400))

    assert stats(store, project(1)).bytes <= 4 << 20
    assert expired_left() < 200, "something had to go"
    # A store may go on evicting beside the test: wait until what is counted and what is seen agree.
    wait_for(lambda: stats(store, project(1)).entries == 200 + 1400 + expired_left(), "only expired entries to be gone")
    assert all(store.get(project(1), key(number)) for number in range(200))
