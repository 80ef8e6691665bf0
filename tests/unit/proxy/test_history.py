"""What is remembered for `watchllm explain` is bounded, whatever a client sends, and still tells what differed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from watchllm.cache.canonical import NO_DEFAULTS
from watchllm.cache.entry import Entry
from watchllm.proxy.history import History
from watchllm.proxy.request import Request
from watchllm.routing.resolve import Target

NAMED = "fast"
TARGET = cast(Target, SimpleNamespace(provider="p", base_url="https://p", vendor=None))


def request_of(
    request_id: str, partition: bytes = b"x" * 16, headers: dict[bytes, bytes] | None = None, cache: str = "MISS"
) -> Request:
    tenant = SimpleNamespace(partition=partition, defaults=lambda _vendor, _family: NO_DEFAULTS)
    request = SimpleNamespace(
        principal=SimpleNamespace(tenant=tenant),
        exchange=SimpleNamespace(query=b"", headers=headers or {}),
        directives=None,
        id=request_id,
        wall_ms=0,
        model="m",
        cache=cache,
        looked=None,
    )
    return cast(Request, request)


def miss(
    history: History,
    request_id: str,
    document: dict[str, Any],
    partition: bytes = b"x" * 16,
    headers: dict[bytes, bytes] | None = None,
) -> None:
    body = msgspec.json.encode(document)
    history.missed(request_of(request_id, partition, headers), TARGET, NAMED, None, body, "generate", "new")


def hit(history: History, request_id: str, document: dict[str, Any]) -> None:
    """The first to a body that the process has not seen."""
    request = request_of(request_id, cache="HIT")
    body = msgspec.json.encode(document)
    entry = cast(Entry, SimpleNamespace(created_ms=0))
    history.hit(request, NAMED, body, entry)
    history.first_seen(request, TARGET, body, body, "generate")


def remembered(history: History) -> int:
    return sum(len(missed.fields) for project in history._projects.values() for missed in project.remembered)


def test_a_request_of_very_many_fields_takes_no_more_room_than_others() -> None:
    history = History()
    miss(history, "req_1", {f"field-{number}": number for number in range(10_000)} | {"n" * 10_000: 1})
    assert remembered(history) < 100
    assert max(len(name) for name in next(iter(history._projects.values())).remembered[0].fields) <= 64


def test_a_difference_among_very_many_fields_is_told() -> None:
    history = History()
    fields = {f"field-{number}": 0 for number in range(10_000)}
    miss(history, "req_1", fields)
    miss(history, "req_2", fields | {"field-9999": 1})
    miss(history, "req_3", fields)
    explained = history.explain("req_2")
    assert explained is not None
    assert explained["differs_in"] == ["other fields"]
    explained = history.explain("req_3")
    assert explained is not None
    assert (explained["nearest"], explained["differs_in"]) == ("req_1", [])


def test_the_messages_that_differ_are_named() -> None:
    history = History()
    miss(history, "req_1", {"messages": ["a", "b", "c"], "temperature": 1})
    miss(history, "req_2", {"messages": ["a", "x", "c"], "temperature": 0})
    explained = history.explain("req_2")
    assert explained is not None
    assert explained["differs_in"] == ["messages[1]", "temperature"]


def test_a_header_that_differs_is_named_alone() -> None:
    history = History()
    miss(history, "req_1", {"n": 1})
    miss(history, "req_2", {"n": 1}, headers={b"openai-beta": b"x", b"accept": b"y"})
    explained = history.explain("req_2")
    assert explained is not None
    assert explained["differs_in"] == ["openai-beta"]


def test_a_hit_of_an_unseen_body_can_be_the_nearest_and_is_never_taken_for_a_miss() -> None:
    history = History()
    hit(history, "req_hit", {"temperature": 1})
    miss(history, "req_1", {"temperature": 2})
    explained = history.explain("req_1")
    assert explained is not None
    assert (explained["nearest"], explained["differs_in"]) == ("req_hit", ["temperature"])
    for number in range(200):
        history.hit(request_of(f"req_again_{number}"), NAMED, b"key", cast(Entry, SimpleNamespace(created_ms=0)))
    assert history.explain("req_hit") is None


def test_a_hit_is_remembered_once_however_often_it_comes() -> None:
    history = History()
    for number in range(10):
        hit(history, f"req_{number}", {"temperature": 1})
    [project] = history._projects.values()
    assert [record.request_id for record in project.remembered] == ["req_0"]


def test_requests_and_projects_are_bounded() -> None:
    history = History()
    for number in range(1_000):
        miss(history, f"req_{number}", {})
    alone = remembered(history)
    for number in range(1_000):
        miss(history, f"req_{number}", {}, number.to_bytes(16, "big"))
    assert remembered(history) < 2 * alone


class Later:
    """Calls the work that waits when it is told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.seconds: list[float] = []

    def __call__(self, seconds: float, work: Callable[[], None]) -> None:
        self.work.append(work)
        self.seconds.append(seconds)

    def come(self) -> None:
        work, self.work = self.work, []
        for do in work:
            do()


def bodies(history: History) -> int:
    """How many bytes of bodies are at hand."""
    records = [missed for project in history._projects.values() for missed in project.remembered]
    held = sum(len(missed.unread.body) for missed in records if missed.unread is not None)
    assert held == history._unread_bytes
    return held


def test_bodies_are_at_hand_for_a_moment_only() -> None:
    later = Later()
    history = History(later)
    for number in range(100):
        miss(history, f"req_{number}", {"messages": ["x" * 2_000], "n": number})
    assert len(later.work) == 1
    assert bodies(history) > 200_000
    for _ in range(4):
        later.come()
    assert bodies(history) == 0
    assert not later.work
    assert remembered(history) == 100 * 5
    explained = history.explain("req_99")
    assert explained is not None
    assert (explained["nearest"], explained["differs_in"]) == ("req_98", ["n"])


def test_the_last_body_of_all_that_may_wait_is_digested_within_a_second() -> None:
    later = Later()
    history = History(later)
    for number in range(250):
        miss(history, f"req_{number}", {"messages": ["x" * 4_000]}, (number % 4).to_bytes(16, "big"))
    assert bodies(history) > 1_000_000
    while later.work:
        later.come()
    assert bodies(history) == 0
    assert sum(later.seconds) < 1.0
    assert later.seconds[0] >= 0.1, "time for newer requests to make it needless"


def test_a_turn_of_digesting_is_bounded() -> None:
    later = Later()
    history = History(later)
    for number in range(100):
        miss(history, f"req_{number}", {"messages": ["x" * 2_000]})
    before = bodies(history)
    later.come()
    assert 60_000 < before - bodies(history) < 70_000
    assert len(later.work) == 1


def test_an_explanation_does_not_wait_for_the_digests() -> None:
    history = History(Later())
    miss(history, "req_1", {"n": 1})
    miss(history, "req_2", {"n": 2})
    explained = history.explain("req_2")
    assert explained is not None
    assert explained["differs_in"] == ["n"]
    assert bodies(history) == 0


def test_the_bodies_that_wait_are_bounded_and_what_finds_no_room_is_digested_at_once() -> None:
    history = History(Later())
    for number in range(300):
        miss(history, f"req_{number}", {"messages": ["x" * 50_000], "n": number}, (number % 10).to_bytes(16, "big"))
        assert bodies(history) <= 1 << 20
    assert remembered(history) > 1_000
    explained = history.explain("req_299")
    assert explained is not None
    assert (explained["nearest"], explained["differs_in"]) == ("req_289", ["n"])


@pytest.mark.parametrize("projects", [1, 10, 100])
def test_requests_that_newer_ones_displaced_are_never_digested(projects: int) -> None:
    later = Later()
    history = History(later)
    for number in range(3_000):
        miss(history, f"req_{number}", {"n": number}, (number % projects).to_bytes(16, "big"))
    records = [*history._unread]
    assert len(records) == 3_000
    assert bodies(history) < 64 * 128 * 10
    kept = {id(missed) for project in history._projects.values() for missed in project.remembered}
    assert len(kept) < 3_000
    later.come()
    assert bodies(history) == 0
    assert not history._unread
    assert {id(record) for record in records if record.fields} == kept
