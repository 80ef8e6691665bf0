"""Journals and usage databases for tests: events, a recorder over SQLite, and rollups computed from scratch."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import text

from tests.support.database import lay_in
from watchllm.analytics import key_uses
from watchllm.analytics.rollups import HOUR_MS, KEY, MEASURES
from watchllm.compose.database import open_engine
from watchllm.control import schema
from watchllm.domain.ids import new_request_id
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.domain.usage_event import Attempt, OpenedCall, UsageEvent
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import Recorder
from watchllm.journal.shared_ledger import SharedUsageStore
from watchllm.stores.postgres.usage import PostgresUsageStore
from watchllm.stores.sqlite.usage import SqliteUsageStore

PRICE = ModelPrice(input=150_000_000, output=600_000_000)
SMALL_SEGMENT = 128 << 10
_TOKENS = ("input", "output", "cached_input", "cache_write", "reasoning", "audio_input", "audio_output")


def call(
    request_id: str, *, attempt: int = 0, at_ns: int | None = None, price: ModelPrice | None = PRICE
) -> OpenedCall:
    """A call upstream of 400 bytes: 100 tokens, estimated."""
    at = time.time_ns() if at_ns is None else at_ns
    return OpenedCall(
        request_id,
        at,
        attempt,
        "prj_1",
        "key_1",
        "chat.completions",
        "openai",
        "gpt",
        "MISS",
        False,
        400,
        price,
        None,
        None,
        None,
        "pvk_1",
    )


def event(request_id: str | None = None, **changes: Any) -> UsageEvent:
    """A settled miss, unless `changes` say otherwise."""
    fields: dict[str, Any] = {
        "request_id": request_id or new_request_id(),
        "at_ns": time.time_ns(),
        "project_id": "prj_1",
        "key_id": "key_1",
        "endpoint": "chat.completions",
        "provider": "openai",
        "model": "gpt",
        "status": 200,
        "cache": "MISS",
        "streamed": False,
        "ended": "complete",
        "usage": TokenUsage(100, 50, 10, 5, 3, 2, 1),
        "cost": 45_000,
        "price": PRICE,
        "latency_us": 900,
        "overhead_us": 80,
        "total_us": 1000,
        "attempts": (Attempt("openai", "gpt", 200, 5, 900, key_id="pvk_1"),),
    }
    return UsageEvent(**{**fields, **changes})


_HITS = ("HIT", "HIT-SEMANTIC", "HIT-COALESCED", "HIT-PARTIAL", "HIT-STALE")


def any_event(choose: random.Random, request_id: str | None = None) -> UsageEvent:
    """Any kind of event there is."""
    cache = choose.choice([*_HITS, "MISS", "BYPASS", ""])
    usage = None
    if choose.random() < 0.8:
        counts = {name: choose.randrange(1000) for name in _TOKENS}
        usage = msgspec.structs.replace(TokenUsage(estimated=choose.random() < 0.2), **counts)
    cost = None if choose.random() < 0.2 else choose.randrange(10**6)
    project = f"prj_{choose.randrange(3)}"
    attempts = tuple(
        Attempt(
            "openai",
            "gpt",
            choose.choice([200, 401, 403, 429]),
            choose.randrange(4 * 3_600_000_000),
            900,
            usage,
            cost,
            PRICE,
            key_id=choose.choice([None, f"pvk_{project}1", f"pvk_{project}2"]),
            hedged=choose.random() < 0.1,
        )
        for _ in range(choose.randrange(1, 4))
    )
    return event(
        request_id,
        at_ns=choose.choice([-5, 0, 1_700_000_000 * 10**9, 1_700_004_000 * 10**9, time.time_ns()]),
        project_id=project,
        provider=choose.choice(["openai", "groq", ""]),
        model=choose.choice(["gpt", "llama"]),
        cache=cache,
        status=choose.choice([200, 400, 499, 502]),
        ended=choose.choice(["complete", "error", "cancelled", "cut", "aborted"]),
        usage=usage,
        cost=cost,
        saved=choose.choice([None, 0, 777]),
        tags=choose.choice([None, "team=a,stage=b", "x", ""]),
        attempts=attempts if cache == "MISS" else (),
        semantic=choose.choice([None, "hit", "miss", "not-tried"]),
        similarity=choose.choice([None, 0.5, 1.0]),
    )


class Usage:
    """A usage database, in SQLite or at the URL of a PostgreSQL, and the recorder that fills it from `journal`."""

    def __init__(self, home: Path, url: str | None = None, name: str = "home_1") -> None:
        self.folder = home / "journal"
        self.database = home / "watchllm.db"
        self.reports: list[str] = []
        self.now_ms: int | None = None
        if url is None:
            lay_in(home)
        self.engine = open_engine(url or f"sqlite:///{self.database}")
        schema.upgrade(self.engine)
        self._name = name
        self.recorder = self.new_recorder()

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    def store(self) -> SharedUsageStore:
        """The store as a recorder that has just started gets it; its clock is `now_ms`, None = the real one."""

        def clock() -> int:
            return self.now_ms or time.time_ns() // 1_000_000

        if self.is_postgres:
            return PostgresUsageStore(self.engine, clock, self._name)
        return SqliteUsageStore(self.engine, clock)

    def new_recorder(self) -> Recorder:
        """A recorder that has just started."""
        return Recorder(self.folder, self.store(), self.reports.append)

    def record(self) -> None:
        """Apply all that there is."""
        while self.recorder.run_once():
            pass

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that a query of unqualified names has."""
        with self.engine.connect() as connection, connection.begin():
            if self.is_postgres:
                connection.execute(text("SET LOCAL search_path = watchllm"))
            return [tuple(row) for row in connection.execute(text(sql))]

    def change(self, sql: str) -> None:
        """Change something behind the recorder's back."""
        with self.engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
            if self.is_postgres:
                connection.execute(text("SET LOCAL search_path = watchllm"))
            connection.execute(text(sql))

    def ids(self) -> list[str]:
        """The request ids of all rows, in the order of their recording."""
        return [name for (name,) in self.query("SELECT request_id FROM usage_logs ORDER BY id")]

    def rollups(self) -> list[tuple[Any, ...]]:
        return sorted(self.query(f"SELECT {', '.join((*KEY, *MEASURES))} FROM usage_hourly"))

    def rollups_from_rows(self) -> list[tuple[Any, ...]]:
        """What the rollups must be: computed from usage_logs by SQL alone."""
        bought = "cache NOT IN ('HIT', 'HIT-SEMANTIC', 'HIT-COALESCED', 'HIT-STALE')"

        def count(condition: str) -> str:
            return f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)"

        def of_bought(column: str) -> str:
            return f"SUM(CASE WHEN {bought} THEN COALESCE({column}, 0) ELSE 0 END)"

        measures = [
            "COUNT(*)",
            count("ended IN ('error', 'cut', 'aborted')"),
            count("ended = 'cancelled'"),
            *(count(f"cache = '{cache}' AND status BETWEEN 200 AND 299") for cache in _HITS),
            *(count(f"cache = '{cache}'") for cache in ("MISS", "BYPASS")),
            *(of_bought(f"{kind}_tokens") for kind in ("input", "output", "cached_input", "cache_write", "reasoning")),
            *(of_bought(f"audio_{kind}_tokens") for kind in ("input", "output")),
            f"SUM(CASE WHEN {bought} THEN 0 ELSE COALESCE(input_tokens + output_tokens, 0) END)",
            count(f"{bought} AND input_tokens IS NOT NULL AND cost_nanos IS NULL"),
            count("estimated"),
            *(f"SUM(COALESCE({column}, 0))" for column in ("cost_nanos", "saved_nanos")),
            *(f"SUM({column})" for column in ("latency_us", "overhead_us")),
        ]
        key = f"at_ms - at_ms % {HOUR_MS}, project_id, provider, model"
        return sorted(self.query(f"SELECT {key}, {', '.join(measures)} FROM usage_logs GROUP BY {key}"))

    def key_uses(self) -> list[tuple[Any, ...]]:
        columns = ", ".join((*key_uses.KEY, *key_uses.MEASURES))
        return sorted(self.query(f"SELECT {columns} FROM provider_key_uses"))

    def key_uses_from_rows(self) -> list[tuple[Any, ...]]:
        """What they must be: computed from the attempts in usage_logs by SQL alone."""
        if self.is_postgres:
            began, status = "(at_ms + (a ->> 'began_us')::bigint / 1000)", "(a ->> 'status')::int"
            attempts = "jsonb_array_elements(usage_logs.attempts::jsonb) AS a"
        else:
            began, status = "(at_ms + (a.value ->> 'began_us') / 1000)", "a.value ->> 'status'"
            attempts = "json_each(usage_logs.attempts) AS a"
        key = "a ->> 'key_id'" if self.is_postgres else "a.value ->> 'key_id'"
        refused, worked = f"{status} IN (401, 403)", f"{status} BETWEEN 200 AND 299"
        return sorted(
            self.query(
                f"SELECT {key} AS pvk, {began} - {began} % {HOUR_MS} AS hour, MAX(project_id), COUNT(*), "
                f"SUM(CASE WHEN {refused} THEN 1 ELSE 0 END), MAX({began}), MAX(CASE WHEN {refused} THEN {began} END), "
                f"MAX(CASE WHEN {worked} THEN {began} END) "
                f"FROM usage_logs, {attempts} WHERE {key} IS NOT NULL GROUP BY pvk, hour"
            )
        )

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def usage_in(home: Path, url: str | None = None, name: str = "home_1") -> Iterator[Usage]:
    usage = Usage(home, url, name)
    try:
        yield usage
    finally:
        usage.close()


def journal_in(home: Path, **options: Any) -> Journal:
    """A journal of small segments."""
    settings: dict[str, Any] = {"max_bytes": 64 << 20, "segment_bytes": SMALL_SEGMENT, **options}
    return Journal.open(home / "journal", **settings)
