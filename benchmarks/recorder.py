"""From the journal to the database: rows a second into SQLite and PostgreSQL, with rollups, by one recorder; and into
PostgreSQL while proxies are told through Redis what everybody has spent after each batch."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import Engine, func, insert, select

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.journal import PRICE, hit
from tests.support.postgres import running_postgres
from tests.support.redis_server import RedisServer
from watchllm.analytics.tables import usage_hourly, usage_logs
from watchllm.control import schema
from watchllm.control.database import Database
from watchllm.control.tables import organizations, projects
from watchllm.domain.usage_event import Attempt, OpenedCall
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import Recorder, UsageStore
from watchllm.journal.shared_ledger import SharedLedger
from watchllm.stores.lmdb.snapshot_copy import NOTHING
from watchllm.stores.postgres.engine import open_engine as open_postgres
from watchllm.stores.postgres.usage import PostgresUsageStore
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_layout import KEPT, WANTED
from watchllm.stores.redis.limits_ledger import RedisAccounts
from watchllm.stores.sqlite.engine import open_engine as open_sqlite
from watchllm.stores.sqlite.usage import SqliteUsageStore

ROWS = 200_000
PROJECTS, ORGANIZATIONS = 20, 10


def run(bench: Bench) -> list[Row]:
    return (
        _into_sqlite(bench.folder / "sqlite")
        + _into_postgres(bench.folder / "postgres")
        + _into_postgres_telling(bench.folder / "telling")
    )


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


def _into_postgres_telling(home: Path) -> list[Row]:
    """The same, where all organizations have budgets that proxies ask for."""
    redis = RedisServer(home / "redis")
    accounts = Blocking(redis.url, 1.0)
    try:
        with running_postgres({"fsync": "on"}) as server:
            engine = open_postgres(server.database())
            schema.upgrade(engine)
            with Database(engine, _now_ms).unit_of_work("benchmark") as work:
                owners = [{"id": _organization(number), "name": str(number)} for number in range(ORGANIZATIONS)]
                work.connection.execute(insert(organizations), [{**one, "created_ms": 1} for one in owners])
                row = {"name": "n", "settings": "{}", "created_ms": 1}
                owned = [
                    {"id": _project(number), "organization_id": _organization(number % ORGANIZATIONS), **row}
                    for number in range(PROJECTS)
                ]
                work.connection.execute(insert(projects), owned)
            accounts.redis.sadd(WANTED, *(one["id"] for one in owners))
            ledger = SharedLedger(
                PostgresUsageStore(engine, _now_ms, "home_1"),
                RedisAccounts(accounts, "installation", "sqlite://", lambda: NOTHING),
            )
            rate, by_cpu = _measured(home, engine, ledger, keys_of_a_project=100, tend=ledger.tend)
            told = accounts.redis.scard(KEPT)
    finally:
        accounts.close()
        redis.stop()
    if ledger.problem is not None or told != ORGANIZATIONS:
        raise AssertionError(f"{told} organizations were told: {ledger.problem}")
    note = (
        f"{PROJECTS} projects of {ORGANIZATIONS} organizations, 100 keys each; Redis is told of each after each batch"
    )
    return [
        Row("journal to PostgreSQL, proxies told in Redis", rate, "rows/s", target=Target("≥", 20_000), note=note),
        Row("the same for a second of the recorder's CPU, told in Redis", by_cpu, "rows/s"),
    ]


def _measured(
    home: Path,
    engine: Engine,
    store: UsageStore,
    *,
    keys_of_a_project: int = 1,
    tend: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Rows a second, by the clock and of the recorder's CPU."""
    _write_journal(home / "journal", keys_of_a_project)
    recorder = Recorder(home / "journal", store, print)
    began, cpu = time.perf_counter(), time.process_time()
    while recorder.run_once():
        tend()
    tend()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    query = select(func.count(), select(func.sum(usage_hourly.c.requests)).scalar_subquery()).select_from(usage_logs)
    with engine.connect() as connection:
        rows, counted = connection.execute(query).one()
    engine.dispose()
    if (rows, counted) != (ROWS, ROWS):
        raise AssertionError(f"{rows} rows and {counted} in rollups, not {ROWS}")
    return ROWS / seconds, ROWS / cpu


def _write_journal(folder: Path, keys_of_a_project: int) -> None:
    journal = Journal.open(folder, max_bytes=1 << 30)
    for number in range(ROWS):
        key_id = f"key_{number % (PROJECTS * keys_of_a_project):032x}"
        event = msgspec.structs.replace(hit(), project_id=_project(number % PROJECTS), key_id=key_id)
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


def _project(number: int) -> str:
    return f"prj_{number:032x}"


def _organization(number: int) -> str:
    return f"org_{number:032x}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
