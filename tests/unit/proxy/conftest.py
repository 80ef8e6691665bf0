"""Flights that are put away after the test, and may not have complained."""

import gc
from collections.abc import Callable, Iterator

import pytest

from tests.support.flight import Trip
from tests.support.internet import Internet


@pytest.fixture
def trips() -> Iterator[Callable[..., Trip]]:
    made: list[Trip] = []

    def make(*, streamed: bool) -> Trip:
        made.append(Trip(streamed=streamed))
        return made[-1]

    yield make
    for trip in made:
        trip.__dict__.pop("leader", None)
        trip.settled.clear()
        gc.collect()
        trip.loop.close()
        assert not trip.complaints


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)
