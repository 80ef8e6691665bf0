"""The journal's cost on the event loop: one settled event into the page cache, and the encoding within that."""

import time
from statistics import median

import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from watchllm.domain.ids import new_request_id
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.domain.usage_event import UsageEvent
from watchllm.journal.journal import Journal

EVENTS = 10_000
ROUNDS = 12
PRICE = ModelPrice(input=150_000_000, output=600_000_000, cached_input=75_000_000)


def run(bench: Bench) -> list[Row]:
    events = [hit() for _ in range(EVENTS)]
    journal = Journal.open(bench.folder / "journal", max_bytes=1 << 30)
    appended, encoded = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for event in events:
            journal.settled(event)
        appended.append((time.perf_counter() - began) / EVENTS * 1e6)
        began = time.perf_counter()
        for event in events:
            msgspec.msgpack.encode(event)
        encoded.append((time.perf_counter() - began) / EVENTS * 1e6)
    journal.close()
    if journal.unrecorded:
        raise AssertionError(f"{journal.unrecorded} events found no room")
    size = len(msgspec.msgpack.encode(events[0]))
    note = f"{size} bytes a record; segments change and sync during the measurement"
    return [
        Row("journal, a settled event", median(appended), "µs", median(encoded), "µs encoding", Target("≤", 4.0), note)
    ]


def hit() -> UsageEvent:
    """An exact hit as the proxy settles it."""
    return UsageEvent(
        request_id=new_request_id(),
        at_ns=time.time_ns(),
        project_id="prj_" + "0" * 32,
        key_id="key_" + "0" * 32,
        endpoint="chat.completions",
        provider="openai",
        model="gpt-4o-mini",
        status=200,
        cache="HIT",
        streamed=False,
        ended="complete",
        usage=TokenUsage(100, 200),
        cost=0,
        saved=135_000,
        price=PRICE,
        latency_us=50,
        overhead_us=50,
        total_us=60,
    )
