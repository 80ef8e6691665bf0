"""Usage in SQLite: the recorder's store. One transaction a batch, many rows a statement."""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import cast

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from watchllm.analytics import key_uses, rollups
from watchllm.analytics.summed import summed
from watchllm.control.database import Clock
from watchllm.domain.ledger import Periods
from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.domain.usage_log import COLUMNS, row_of
from watchllm.journal.recorder import DAMAGE_TAG, DAY_MS, Batch, Position, Retention, SetAside, StoreUnavailable
from watchllm.journal.recovery import aborted
from watchllm.journal.restored import check_positions
from watchllm.stores.sqlite import spending as spent

_KEEP_FINISHED_MS = DAY_MS
_FORGET_AT_ONCE = 2000
_BUSY_MS = 500
_IN_CHUNK = 500
_LARGEST = (1 << 63) - 1
_MOST_ORGANIZATIONS = 100_000


def _insert(table: str, columns: Iterable[str]) -> str:
    names = list(columns)
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({quoted}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 (names of our own)


# Beyond 64 bits a sum would be a float from then on, which no reader of integers takes.
_SUMS = ", ".join(f"{name} = MIN({name} + excluded.{name}, {_LARGEST})" for name in rollups.MEASURES)
_ADD_ROLLUP = (
    _insert("usage_hourly", (*rollups.KEY, *rollups.MEASURES))
    + f" ON CONFLICT (project_id, hour_ms, provider, model) DO UPDATE SET {_SUMS}"
)
_LATEST = ", ".join(
    # Its MAX of NULL and a number is NULL.
    f"{name} = MAX(COALESCE({name}, excluded.{name}), COALESCE(excluded.{name}, {name}))"
    for name in ("last_ms", "last_refused_ms", "last_worked_ms")
)
_ADD_KEY_USES = _insert("provider_key_uses", (*key_uses.KEY, *key_uses.MEASURES)) + (
    " ON CONFLICT (provider_key_id, hour_ms) DO UPDATE SET uses = uses + excluded.uses, "
    f"refused = refused + excluded.refused, {_LATEST}"
)
_ADD_ROW = _insert("usage_logs", COLUMNS)
_ADD_OPENED = _insert("journal_opened", ("request_id", "attempt", "series", "region", "call")) + (
    " ON CONFLICT (request_id, attempt) DO NOTHING"
)
_ADD_SET_ASIDE = _insert("journal_set_aside", ("series", "sequence", "offset", "tag", "region", "payload", "at_ms")) + (
    " ON CONFLICT DO NOTHING"
)
_POSITIONS = 'SELECT series, sequence, "offset", finished FROM journal_positions'
_SET_POSITION = _insert("journal_positions", ("series", "sequence", "offset", "finished", "torn", "updated_ms")) + (
    ' ON CONFLICT (series) DO UPDATE SET sequence = excluded.sequence, "offset" = excluded."offset", '
    "finished = excluded.finished, torn = torn + excluded.torn, updated_ms = excluded.updated_ms"
)

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(OpenedCall).decode


class SqliteUsageStore:
    """Implements `journal.shared_ledger.SharedUsageStore` on an engine of `stores.sqlite.engine`, its schema being up
    to date."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._organizations: dict[str, str] = {}

    def positions(self) -> dict[str, Position]:
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(_POSITIONS).fetchall()
        return {series: Position(sequence, offset, bool(finished)) for series, sequence, offset, finished in rows}

    def positions_everywhere(self, since_ms: int | None = None, also: Collection[str] = ()) -> dict[str, Position]:
        # The file is of one host.
        query = f"{_POSITIONS} WHERE NOT finished OR updated_ms >= ? OR series IN (SELECT value FROM json_each(?))"  # noqa: S608 (names of our own)
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(query, (since_ms, json.dumps(list(also)))).fetchall()
        return {series: Position(sequence, offset, bool(finished)) for series, sequence, offset, finished in rows}

    def set_aside(self) -> list[SetAside]:
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(
                'SELECT series, sequence, "offset", tag, region, payload FROM journal_set_aside WHERE tag <> ? '
                'ORDER BY series, sequence, "offset"',
                (DAMAGE_TAG,),
            ).fetchall()
        return [SetAside(*row) for row in rows]

    def catch_up(self) -> bool:
        any_due = False
        while True:
            with self._transaction("BEGIN") as connection:
                if connection.execute("SELECT 1 FROM spending_due LIMIT 1").fetchone() is None:
                    return any_due
            with self._transaction("BEGIN IMMEDIATE") as connection:
                any_due |= spent.add_due(connection, self._organization_in(connection)) > 0

    def spent(self, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
        with self._transaction("BEGIN") as connection:
            return spent.spent(connection, subjects, periods)

    def organizations_of(self, projects: Iterable[str]) -> dict[str, str]:
        with self._transaction("BEGIN") as connection:
            pairs = [(name, self._organization(connection, name)) for name in projects]
        return {name: organization for name, organization in pairs if organization is not None}

    def members(self, organization: str) -> set[str]:
        with self._transaction("BEGIN") as connection:
            rows = connection.execute(
                "SELECT id FROM projects WHERE organization_id = ? UNION ALL SELECT keys.id FROM keys "
                "JOIN projects ON projects.id = keys.project_id WHERE projects.organization_id = ?",
                (organization, organization),
            ).fetchall()
        return {organization, *(name for (name,) in rows)}

    def apply(self, batch: Batch) -> int:
        try:
            return self._apply(batch, careful=False)
        except sqlite3.IntegrityError:
            # Some request has a row already (a folder that was rescued, a record that was read before a crash of the
            # disk): look each one up, which is slow and rare.
            return self._apply(batch, careful=True)

    def expire(self, retention: Retention) -> bool:
        now = self._clock()
        limits: list[tuple[str, tuple[object, ...]]] = []
        if (day := retention.first_day(now)) is not None:
            limits.append(("at_ms < ?", (day * DAY_MS,)))
        for project, day in retention.first_days(now).items():
            limits.append(("project_id = ? AND at_ms < ?", (project, day * DAY_MS)))
        left = _FORGET_AT_ONCE
        with self._transaction("BEGIN IMMEDIATE") as connection:
            for condition, values in limits:
                rows = f"SELECT id FROM usage_logs WHERE {condition} LIMIT ?"  # noqa: S608 (conditions of our own)
                done = connection.execute(f"DELETE FROM usage_logs WHERE id IN ({rows})", (*values, left))  # noqa: S608
                left -= done.rowcount
            if left:
                left -= spent.forget(connection, now, left)
        return left <= 0

    def _apply(self, batch: Batch, *, careful: bool) -> int:
        now = self._clock()
        with self._transaction("BEGIN IMMEDIATE") as connection:
            query = f"{_POSITIONS} WHERE series IN (SELECT value FROM json_each(?))"  # noqa: S608 (names of our own)
            rows = connection.execute(query, (json.dumps(list(batch.read_from)),)).fetchall()
            check_positions(
                batch.read_from, {name: Position(at, offset, bool(ended)) for name, at, offset, ended in rows}
            )
            ended = {event.request_id for event, _ in batch.settled}
            ended.update(batch.unreadable)
            events = batch.settled
            self._keep_open(connection, batch, ended)
            if batch.finished:
                events = events + self._close(connection, batch.finished)
            if careful:
                events = self._without_known(connection, events)
            self._write(connection, events)
            connection.executemany(_ADD_SET_ASIDE, [(*item, now) for item in batch.set_aside])
            connection.executemany(
                'DELETE FROM journal_set_aside WHERE series = ? AND sequence = ? AND "offset" = ?',
                [(item.series, item.sequence, item.offset) for item in batch.readable_now],
            )
            connection.executemany(
                _SET_POSITION,
                [
                    (series, at.sequence, at.offset, at.finished, batch.torn.get(series, 0), now)
                    for series, at in batch.positions.items()
                ],
            )
            if batch.finished:
                connection.execute(
                    "DELETE FROM journal_positions WHERE finished AND torn = 0 AND updated_ms < ?",
                    (now - _KEEP_FINISHED_MS,),
                )
        return len(events)

    def _write(self, connection: sqlite3.Connection, events: list[tuple[UsageEvent, str]]) -> None:
        spent.begin_counting(connection)
        connection.executemany(_ADD_ROW, [row_of(event, region) for event, region in events])
        spent.end_counting(connection)
        rollup, uses, spendings = summed(events)
        # A sum that SQLite cannot hold would stop the recording of all projects, not only of the one whose provider
        # told absurd numbers.
        capped = [(*key, *(min(value, _LARGEST) for value in sums)) for key, sums in rollup.items()]
        connection.executemany(_ADD_ROLLUP, capped)
        connection.executemany(_ADD_KEY_USES, [(*key, *measures) for key, measures in uses.items()])
        spent.add(connection, spendings, self._organization_in(connection))

    def _organization_in(self, connection: sqlite3.Connection) -> Callable[[str], str | None]:
        return lambda project_id: self._organization(connection, project_id)

    def _organization(self, connection: sqlite3.Connection, project_id: str) -> str | None:
        """A project's organization, which it keeps for good; None = it is not known here."""
        found = self._organizations.get(project_id)
        if found is None:
            row = connection.execute("SELECT organization_id FROM projects WHERE id = ?", (project_id,)).fetchone()
            if row is None:
                return None
            if len(self._organizations) >= _MOST_ORGANIZATIONS:
                self._organizations.clear()
            found = self._organizations[project_id] = row[0]
        return found

    def _keep_open(self, connection: sqlite3.Connection, batch: Batch, ended: set[str]) -> None:
        """Most calls open and settle within a batch and are never written."""
        still_open = [
            (call.request_id, call.attempt, series, region, _encode(call))
            for series, region, call in batch.opened
            if call.request_id not in ended
        ]
        connection.executemany(_ADD_OPENED, still_open)
        if connection.execute("SELECT 1 FROM journal_opened LIMIT 1").fetchone():
            connection.executemany("DELETE FROM journal_opened WHERE request_id = ?", [(name,) for name in ended])

    def _close(self, connection: sqlite3.Connection, finished: list[str]) -> list[tuple[UsageEvent, str]]:
        """The events that close what is still open of these series, which is forgotten."""
        closed: list[tuple[UsageEvent, str]] = []
        for series in finished:
            rows = connection.execute(
                "SELECT request_id, region, call FROM journal_opened WHERE series = ? ORDER BY request_id, attempt",
                (series,),
            ).fetchall()
            for _, group in groupby(rows, key=lambda row: row[0]):
                calls = list(group)
                closed.append((aborted([_decode_call(call) for _, _, call in calls]), calls[0][1]))
            connection.execute("DELETE FROM journal_opened WHERE series = ?", (series,))
        return closed

    def _without_known(
        self, connection: sqlite3.Connection, events: list[tuple[UsageEvent, str]]
    ) -> list[tuple[UsageEvent, str]]:
        ids = [event.request_id for event, _ in events]
        known: set[str] = set()
        for start in range(0, len(ids), _IN_CHUNK):
            chunk = ids[start : start + _IN_CHUNK]
            marks = ", ".join("?" * len(chunk))
            query = f"SELECT request_id FROM usage_logs WHERE request_id IN ({marks})"  # noqa: S608 (marks only)
            known.update(name for (name,) in connection.execute(query, chunk))
        fresh = []
        for event, region in events:
            if event.request_id not in known:
                known.add(event.request_id)
                fresh.append((event, region))
        return fresh

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """The driver's own connection: for rows by the ten thousand, SQLAlchemy's part would be the larger one."""
        try:
            pooled = self._engine.raw_connection()
            try:
                connection = cast(sqlite3.Connection, pooled.driver_connection)
                # Not the engine's long time-out: the recorder has to heed its signals, and tries again anyway.
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                connection.execute(begin)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    connection.rollback()
                    raise
            finally:
                pooled.close()
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.Error, DBAPIError) as error:
            raise StoreUnavailable(f"the database {self._engine.url.database}: {error}") from error
