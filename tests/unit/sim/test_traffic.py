"""The demo's traffic is a mixture that repeats itself enough to be cached, stays in its rate, and ends when told."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.support.ports import free_port
from watchllm.sim.app import SimApp, SimOptions
from watchllm.sim.knobs import Knobs
from watchllm.sim.traffic import run_traffic, shots
from watchllm.wire.server import serve


def test_the_mixture_is_repeatable_and_has_everything() -> None:
    drawn = list(itertools.islice(shots(random.Random(1)), 1000))
    assert drawn == list(itertools.islice(shots(random.Random(1)), 1000))
    bodies = Counter(json.dumps(shot.body, sort_keys=True) for shot in drawn)
    assert sum(count - 1 for count in bodies.values()) > 400, "most requests were seen before"
    assert len(bodies) > 150, "and many are new"
    assert sum(bool(shot.body.get("stream")) for shot in drawn) > 100
    assert sum(shot.path == "/embeddings" for shot in drawn) > 50
    for part in ("tools", "response_format"):
        assert any(part in shot.body for shot in drawn), part
    assert any(shot.leave_after for shot in drawn)
    assert any("status-429" in shot.body["model"] for shot in drawn)
    assert {name for shot in drawn for name, _ in shot.headers} == {"X-WatchLLM-User", "X-WatchLLM-Tags"}


def with_sim(use: Callable[[str, SimApp], Awaitable[None]], options: SimOptions | None = None) -> None:
    async def run() -> None:
        app = SimApp(options)
        server = await serve(app)
        try:
            await use(f"http://127.0.0.1:{server.port}/v1", app)
        finally:
            await server.close()

    asyncio.run(run())


def test_it_runs_until_told_to_stop_with_the_key_on_every_request() -> None:
    async def use(base_url: str, app: SimApp) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(run_traffic(base_url, "lgw_test_x", rate=400, stop=stop, seed=3))
        async with asyncio.timeout(20):
            while app.ledger.calls < 150:
                await asyncio.sleep(0.005)
        stop.set()
        report = await asyncio.wait_for(running, 10)
        assert report.sent >= 150
        assert report.by_status[200] > 100
        assert set(report.by_status) <= {200, 400, 429, 500}
        assert all(received.headers[b"authorization"] == b"Bearer lgw_test_x" for received in app.ledger.requests)
        assert set(app.ledger.by_path) == {b"/v1/chat/completions", b"/v1/embeddings"}

    with_sim(use)


def test_it_ends_by_itself_and_keeps_to_its_rate() -> None:
    async def use(base_url: str, app: SimApp) -> None:
        report = await run_traffic(base_url, "k", rate=100, stop=asyncio.Event(), duration=0.5)
        # 50 are expected; the bounds are seven standard deviations wide, as arrivals are random.
        assert 1 <= report.sent <= 100
        assert app.ledger.calls <= report.sent

    with_sim(use)


def test_a_gateway_that_is_not_there_is_counted() -> None:
    async def gone() -> None:
        report = await run_traffic(
            f"http://127.0.0.1:{free_port()}/v1", "k", rate=200, stop=asyncio.Event(), duration=0.3
        )
        assert report.failed > 0
        assert report.by_status == {}

    asyncio.run(gone())


def test_a_gateway_that_hangs_is_not_buried() -> None:
    async def use(base_url: str, app: SimApp) -> None:
        report = await run_traffic(base_url, "k", rate=500, stop=asyncio.Event(), duration=0.5)
        assert app.ledger.peak_open <= 64
        assert report.skipped > 0

    with_sim(use, SimOptions(knobs=Knobs(hang=True)))


@pytest.mark.parametrize(
    ("url", "rate"), [("ftp://x/v1", 5.0), ("nonsense", 5.0), ("http://h/v1", 0.0), ("http://h/v1", 1e6)]
)
def test_nonsense_is_refused(url: str, rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate|URL"):
        asyncio.run(run_traffic(url, "k", rate=rate, stop=asyncio.Event()))
