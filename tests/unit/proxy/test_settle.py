"""What a process counts stays bounded, whatever clients make up; the short way of a hit counts as the long one."""

from time import perf_counter
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from tests.support.journal import event
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import UsageEvent
from watchllm.proxy.request import Request
from watchllm.proxy.settle import Counters, NoJournal, Settlement
from watchllm.routing.resolve import Target
from watchllm.wire.exchange import Exchange

TARGET = cast(Target, SimpleNamespace(provider="openai", model="m" * 300))


def test_names_that_clients_invent_do_not_make_series_without_end() -> None:
    counters = Counters()
    for number in range(5_000):
        counters.add(event(endpoint=f"invented-{number}"))
    counters.add(event(endpoint="invented-0"))
    requests = counters.read().requests
    assert len(requests) <= 1_100
    assert requests["invented-0", "MISS", 200] == 2
    assert sum(requests.values()) == 5_001


@pytest.mark.parametrize("count", [1, 511, 512, 513, 2_000])
def test_hits_that_were_noted_add_up_to_what_their_events_say(count: int) -> None:
    by_event, noted = Counters(), Counters()
    for number in range(count):
        endpoint = "completions" if number % 3 else "chat.completions"
        latency, saved = number * number % 6_000_001 if number % 7 else 100, number % 5
        hit = event(endpoint=endpoint, cache="HIT", latency_us=latency, overhead_us=latency, cost=0, saved=saved)
        by_event.add(hit)
        noted.hit(endpoint, latency, saved)
    assert noted.read() == by_event.read()
    assert noted.read() == by_event.read(), "nothing is added up twice"


def test_hits_are_noted_within_a_bound_when_nobody_reads() -> None:
    counters = Counters()
    for _ in range(5_000):
        counters.hit("completions", 100, 5)
    assert len(counters._hits) < 512


def test_what_was_read_does_not_change_while_others_are_counted() -> None:
    counters = Counters()
    counters.hit("completions", 100, 5)
    before = counters.read()
    counters.hit("completions", 100, 5)
    assert counters.read().requests == {("completions", "HIT", 200): 2}
    assert before.requests == {("completions", "HIT", 200): 1}
    assert sum(before.latency) == 1


def test_a_hit_settled_the_short_way_says_what_the_long_way_says() -> None:
    events: list[UsageEvent] = []
    for short in (True, False):
        settlement = Settlement(Counters(), NoJournal())
        settlement.observers.append(events.append)
        request = hit()
        if short:
            settlement.settle_hit(request, TARGET)
        else:
            settlement.settle(request, 200, "complete")
        assert request.settled
    quick, slow = (msgspec.structs.asdict(told) for told in events)
    # The long way looks at the clock once more, after the head was written.
    assert quick.pop("total_us") <= slow.pop("total_us")
    assert quick == slow


def hit() -> Request:
    """An exact hit whose head was written 40 µs after it came."""
    exchange = SimpleNamespace(began=perf_counter() - 1, headers={b"host": b"x"})
    request = Request(cast(Exchange, exchange), "chat.completions")
    request.id, request.wall_ns = "req_1", 1_700_000_000_000_000_000
    request.principal = SimpleNamespace(  # type: ignore[assignment]
        tenant=SimpleNamespace(project=SimpleNamespace(id="prj_1")), key=SimpleNamespace(id="key_1"), subject=None
    )
    request.target, request.model, request.cache = TARGET, TARGET.model, "HIT"
    request.usage, request.cost, request.saved = TokenUsage(100, 50), 0, 45_000
    request.head_sent = request.began + 0.00004
    return request
