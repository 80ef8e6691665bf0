"""Embeddings that many ask for at once: an item under way is waited for, and bought once."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.embeddings import MODEL, PATH, cache_of, key_behind, post, vectors
from tests.support.product import Gateway, Sim
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(vectors) as server:
        yield server


@pytest.fixture
def long_lived(open_gateway: Gateway, upstream: ScriptedUpstream) -> str:
    return key_behind(open_gateway, upstream)


class Gate:
    """A provider that answers when it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[Any] = []

    def __call__(self, call: Call) -> None:
        self.asked.append(json.loads(call.body)["input"])
        self.open.wait(20)
        vectors(call)


def together(gateway: Gateway, key: str, upstream: ScriptedUpstream, batches: list[list[str]]) -> list[RawResponse]:
    """Ask for all batches, one begun after the other; the provider answers when all are under way."""
    upstream.script = gate = Gate()
    held = _held(gateway)
    with ThreadPoolExecutor(len(batches)) as threads:
        futures = []
        for number, batch in enumerate(batches):
            futures.append(threads.submit(post, gateway, key, batch))
            held = wait_for(
                lambda before=held: now if (now := _held(gateway)) > before else 0, f"request {number} under way"
            )
        gate.open.set()
        return [future.result() for future in futures]


def _held(gateway: Gateway) -> int:
    """Bytes of the bodies of requests that wait: unlike its connection, a body is there only when its request is."""
    from tests.support.admin import status_of

    return int(status_of(gateway)["inflight_bytes"])


def test_items_under_way_are_waited_for_and_not_bought_twice(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    answers = together(open_gateway, long_lived, upstream, [["a", "bb"], ["bb", "ccc"], ["a", "bb"], ["ccc", "a"]])
    assert [cache_of(answer) for answer in answers] == ["MISS", "HIT-PARTIAL", "HIT-COALESCED", "HIT-COALESCED"]
    assert [[entry["embedding"][0] for entry in answer.json()["data"]] for answer in answers] == [
        [1.5, 2.5], [2.5, 3.5], [1.5, 2.5], [3.5, 1.5],
    ]  # fmt: skip
    assert sum(answer.json()["usage"]["total_tokens"] for answer in answers) == 3
    assert len(upstream.calls) == 2


def test_the_first_that_leaves_does_not_take_the_others_with_it(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    upstream.script = gate = Gate()
    with RawConnection(open_gateway.port) as leaver, ThreadPoolExecutor(1) as threads:
        leaver.send(request_bytes(PATH, key=long_lived, body={"model": MODEL, "input": ["a"]}))
        wait_for(lambda: gate.asked, "the call upstream")
        before = _held(open_gateway)
        stayer = threads.submit(post, open_gateway, long_lived, ["a"])
        both = wait_for(lambda: held if (held := _held(open_gateway)) > before else 0, "the second request")
        leaver.close()
        wait_for(lambda: _held(open_gateway) < both, "the first to be gone")
        gate.open.set()
        answer = stayer.result()
    # The call is kept, and who still waits for it pays for it.
    assert (answer.status, cache_of(answer), gate.asked) == (200, "MISS", [["a"]])
    assert answer.json()["usage"]["total_tokens"] == 1


def test_a_failure_is_everybodys(open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream) -> None:
    released = threading.Event()

    def fail(call: Call) -> None:
        released.wait(20)
        call.reply(503, b'{"error": {"message": "overloaded"}}')

    upstream.script = fail
    before = _held(open_gateway)
    a_body = len(f'{{"model":"{MODEL}","input":["a"]}}')
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(post, open_gateway, long_lived, ["a"]) for _ in range(8)]
        wait_for(lambda: _held(open_gateway) >= before + 8 * a_body, "all under way")
        released.set()
        assert {future.result().status for future in futures} == {503}
    assert len(upstream.calls) == 1
