"""From the journal to the database: rows a second into SQLite with rollups, by one recorder on one core."""

import sqlite3
import time

import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.journal import PRICE, hit
from watchllm.control import schema
from watchllm.domain.usage_event import Attempt, OpenedCall
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import Recorder
from watchllm.stores.sqlite.engine import open_engine
from watchllm.stores.sqlite.usage import SqliteUsageStore

ROWS = 200_000


def run(bench: Bench) -> list[Row]:
    home = bench.folder / "recorder"
    journal = Journal.open(home / "journal", max_bytes=1 << 30)
    for number in range(ROWS):
        event = msgspec.structs.replace(hit(), project_id=f"prj_{number % 20:032x}")
        if number % 3 == 0:
            attempt = Attempt("openai", "gpt-4o-mini", 200, 90, 500_000, event.usage, 135_000, PRICE)
            event = msgspec.structs.replace(event, cache="MISS", cost=135_000, saved=None, attempts=(attempt,))
            call = OpenedCall(
                event.request_id,
                event.at_ns,
                0,
                event.project_id,
                event.key_id,
                event.endpoint,
                "openai",
                event.model,
                "MISS",
                False,
                900,
                PRICE,
            )
            journal.opened(call)
        journal.settled(event)
    journal.close()
    engine = open_engine(f"sqlite:///{home}/watchllm.db")
    schema.upgrade(engine)
    store = SqliteUsageStore(engine, lambda: time.time_ns() // 1_000_000)
    recorder = Recorder(home / "journal", store, print)
    began, cpu = time.perf_counter(), time.process_time()
    while recorder.run_once():
        pass
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    engine.dispose()
    with sqlite3.connect(home / "watchllm.db") as connection:
        query = "SELECT COUNT(*), (SELECT SUM(requests) FROM usage_hourly) FROM usage_logs"
        rows, counted = connection.execute(query).fetchone()
    connection.close()
    if (rows, counted) != (ROWS, ROWS):
        raise AssertionError(f"{rows} rows and {counted} in rollups, not {ROWS}")
    note = f"{ROWS:,} rows, a third of them misses with their opened record; commits are synced"
    return [
        Row("journal to database", ROWS / seconds, "rows/s", target=Target("≥", 20_000), note=note),
        Row("the same for a second of CPU", ROWS / cpu, "rows/s"),
    ]
