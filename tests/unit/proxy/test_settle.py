"""What a process counts stays bounded, whatever its clients make up."""

from tests.support.journal import event
from watchllm.proxy.settle import Counters


def test_names_that_clients_invent_do_not_make_series_without_end() -> None:
    counters = Counters()
    for number in range(5_000):
        counters.add(event(endpoint=f"invented-{number}"))
    counters.add(event(endpoint="invented-0"))
    assert len(counters.requests) <= 1_100
    assert counters.requests["invented-0", "MISS", 200] == 2
    assert sum(counters.requests.values()) == 5_001
