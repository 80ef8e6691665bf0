"""From the journal to the database: rows a second into SQLite and PostgreSQL, with rollups, by one recorder."""

import time
from pathlib import Path

import msgspec
from sqlalchemy import Engine, func, select

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.journal import PRICE, hit
from tests.support.postgres import running_postgres
from watchllm.analytics.tables import usage_hourly, usage_logs
from watchllm.control import schema
from watchllm.domain.usage_event import Attempt, OpenedCall
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import Recorder, UsageStore
from watchllm.stores.postgres.engine import open_engine as open_postgres
from watchllm.stores.postgres.usage import PostgresUsageStore
from watchllm.stores.sqlite.engine import open_engine as open_sqlite
from watchllm.stores.sqlite.usage import SqliteUsageStore

ROWS = 200_000


def run(bench: Bench) -> list[Row]:
    return _into_sqlite(bench.folder / "sqlite") + _into_postgres(bench.folder / "postgres")


def _into_sqlite(home: Path) -> list[Row]:
    engine = open_sqlite(f"sqlite:///{home}/watchllm.db")
    schema.upgrade(engine)
    rate, by_cpu = _measured(home, engine, SqliteUsageStore(engine, _now_ms))
    note = f"{ROWS:,} rows, a third of them misses with their opened record; commits are synced"
    return [
        Row("journal to SQLite", rate, "rows/s", target=Target("≥", 20_000), note=note),
        Row("the same for a second of CPU", by_cpu, "rows/s"),
    ]


def _into_postgres(home: Path) -> list[Row]:
    with running_postgres({"fsync": "on"}) as server:
        engine = open_postgres(server.database())
        rate, by_cpu = _measured(home, engine, PostgresUsageStore(engine, _now_ms, "home_1"))
    note = "the same rows by COPY over TCP; commits are synced; recorder and server share this machine"
    return [
        Row("journal to PostgreSQL", rate, "rows/s", target=Target("≥", 20_000), note=note),
        Row("the same for a second of the recorder's CPU", by_cpu, "rows/s"),
    ]


def _measured(home: Path, engine: Engine, store: UsageStore) -> tuple[float, float]:
    """Rows a second, by the clock and of the recorder's CPU."""
    _write_journal(home / "journal")
    recorder = Recorder(home / "journal", store, print)
    began, cpu = time.perf_counter(), time.process_time()
    while recorder.run_once():
        pass
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    query = select(func.count(), select(func.sum(usage_hourly.c.requests)).scalar_subquery()).select_from(usage_logs)
    with engine.connect() as connection:
        rows, counted = connection.execute(query).one()
    engine.dispose()
    if (rows, counted) != (ROWS, ROWS):
        raise AssertionError(f"{rows} rows and {counted} in rollups, not {ROWS}")
    return ROWS / seconds, ROWS / cpu


def _write_journal(folder: Path) -> None:
    journal = Journal.open(folder, max_bytes=1 << 30)
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
