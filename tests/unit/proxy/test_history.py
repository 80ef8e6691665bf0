"""What is remembered for `watchllm explain` is bounded, whatever a client sends, and still tells what differed."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec

from watchllm.cache.canonical import NO_DEFAULTS
from watchllm.proxy.history import History
from watchllm.proxy.request import Request
from watchllm.routing.resolve import Target

TARGET = cast(Target, SimpleNamespace(provider="p", base_url="https://p", vendor=None))


def miss(history: History, request_id: str, document: dict[str, Any], partition: bytes = b"x" * 16) -> None:
    tenant = SimpleNamespace(partition=partition, defaults=lambda _vendor, _family: NO_DEFAULTS)
    request = SimpleNamespace(
        principal=SimpleNamespace(tenant=tenant),
        exchange=SimpleNamespace(query=b"", headers={}),
        directives=None,
        id=request_id,
        wall_ms=0,
        model="m",
    )
    body = msgspec.json.encode(document)
    history.missed(cast(Request, request), TARGET, None, body, "generate", "new")


def remembered(history: History) -> int:
    return sum(len(missed.fields) for project in history._projects.values() for missed in project.missed)


def test_a_request_of_very_many_fields_takes_no_more_room_than_others() -> None:
    history = History()
    miss(history, "req_1", {f"field-{number}": number for number in range(10_000)} | {"n" * 10_000: 1})
    assert remembered(history) < 100
    assert max(len(name) for name in next(iter(history._projects.values())).missed[0].fields) <= 64


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


def test_requests_and_projects_are_bounded() -> None:
    history = History()
    for number in range(1_000):
        miss(history, f"req_{number}", {})
    alone = remembered(history)
    for number in range(1_000):
        miss(history, f"req_{number}", {}, number.to_bytes(16, "big"))
    assert remembered(history) < 2 * alone
