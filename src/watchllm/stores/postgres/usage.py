"""Usage in PostgreSQL: the recorder's store. One transaction a batch: rows by COPY, rollups and position beside them.

The database is shared by the recorders of all hosts: each one's journals are told apart by its `home`, and sums are
added to in one order of their keys, so that two recorders never wait for each other in a circle.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import cast

import msgspec
import psycopg
from psycopg.errors import CheckViolation, LockNotAvailable, UniqueViolation
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from watchllm.analytics import key_uses, rollups, spending
from watchllm.analytics.summed import summed
from watchllm.control.database import Clock, place
from watchllm.domain.ledger import Periods
from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.domain.usage_log import row_of
from watchllm.journal.recorder import DAMAGE_TAG, DAY_MS, Batch, Position, Retention, SetAside, StoreUnavailable
from watchllm.journal.recovery import aborted
from watchllm.journal.restored import check_positions
from watchllm.stores.postgres import copying, merging, partitions
from watchllm.stores.postgres import spending as spent
from watchllm.stores.postgres.merging import merge
from watchllm.stores.postgres.partitions import RawConnection

_KEEP_FINISHED_MS = DAY_MS
# Homes come and go. One that is away for longer, with files that it had no time to remove, looks each row up again.
_KEEP_OF_OTHERS_MS = 30 * DAY_MS
_FORGET_AT_ONCE = 10_000
_TRIES = 4
_MOST_ORGANIZATIONS = 100_000
_LARGEST = (1 << 63) - 1
_DAYS_AHEAD = 2

Recorded = list[tuple[UsageEvent, str]]


_ADD_ROLLUP = merging.statement(
    "usage_hourly",
    {"hour_ms": "bigint", **dict.fromkeys(rollups.KEY[1:], "text"), **dict.fromkeys(rollups.MEASURES, "bigint")},
    # A sum beyond 64 bits would stop the recording of all projects, not only of the one whose provider told absurd
    # numbers.
    "(project_id, hour_ms, provider, model) DO UPDATE SET "
    + ", ".join(f"{name} = LEAST(kept.{name}::numeric + excluded.{name}, {_LARGEST})" for name in rollups.MEASURES),
)
_ADD_KEY_USES = merging.statement(
    "provider_key_uses",
    {
        "provider_key_id": "text",
        "hour_ms": "bigint",
        "project_id": "text",
        **dict.fromkeys(key_uses.MEASURES[1:], "bigint"),
    },
    "(provider_key_id, hour_ms) DO UPDATE SET uses = kept.uses + excluded.uses, "
    "refused = kept.refused + excluded.refused, "
    + ", ".join(
        f"{name} = GREATEST(kept.{name}, excluded.{name})" for name in ("last_ms", "last_refused_ms", "last_worked_ms")
    ),
)
_ADD_OPENED = merging.statement(
    "journal_opened",
    {"request_id": "text", "attempt": "integer", "series": "text", "region": "text", "call": "bytea"},
    "(request_id, attempt) DO NOTHING",
)
_ADD_SET_ASIDE = merging.statement(
    "journal_set_aside",
    {
        "series": "text",
        "sequence": "bigint",
        "offset": "bigint",
        "tag": "integer",
        "region": "text",
        "payload": "bytea",
        "at_ms": "bigint",
        "home": "text",
    },
    "DO NOTHING",
)
_SET_POSITION = merging.statement(
    "journal_positions",
    {
        "series": "text",
        "sequence": "bigint",
        "offset": "bigint",
        "finished": "boolean",
        "torn": "bigint",
        "updated_ms": "bigint",
        "home": "text",
    },
    '(series) DO UPDATE SET sequence = excluded.sequence, "offset" = excluded."offset", finished = excluded.finished, '
    "torn = kept.torn + excluded.torn, updated_ms = excluded.updated_ms, home = excluded.home",
)
_POSITIONS = 'SELECT series, sequence, "offset", finished FROM watchllm.journal_positions'
_MEMBERS = (
    "SELECT id FROM watchllm.projects WHERE organization_id = %s UNION ALL SELECT keys.id FROM watchllm.keys "
    "JOIN watchllm.projects ON projects.id = keys.project_id WHERE projects.organization_id = %s"
)
_TAKEN_BACK = (
    "DELETE FROM watchllm.journal_set_aside AS kept USING unnest(%s::text[], %s::bigint[], %s::bigint[]) "
    'AS gone (series, sequence, "offset") '
    'WHERE kept.series = gone.series AND kept.sequence = gone.sequence AND kept."offset" = gone."offset"'
)
_FORGET = (
    "DELETE FROM watchllm.usage_logs AS row USING (SELECT at_ms, id FROM watchllm.usage_logs "
    "WHERE project_id = ANY(%s) AND at_ms < %s LIMIT %s) AS old "
    "WHERE row.at_ms = old.at_ms AND row.id = old.id"
)

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(OpenedCall).decode


class PostgresUsageStore:
    """Implements `journal.shared_ledger.SharedUsageStore` on an engine of `stores.postgres.engine`, its schema being up
    to date.

    `home` names whose journals are recorded (see `stores.home.identity`).
    """

    def __init__(self, engine: Engine, clock: Clock, home: str) -> None:
        self._engine = engine
        self._clock = clock
        self._home = home
        self._days: set[int] = set()
        self._organizations: dict[str, str] = {}

    def positions(self) -> dict[str, Position]:
        with self._transaction() as connection:
            return self._positions(connection, None)

    def positions_everywhere(self, since_ms: int | None = None, also: Collection[str] = ()) -> dict[str, Position]:
        query = f"{_POSITIONS} WHERE NOT finished OR updated_ms >= %s OR series = ANY(%s)"
        with self._transaction() as connection:
            rows = connection.execute(query, [since_ms, list(also)]).fetchall()
        return {series: Position(sequence, offset, finished) for series, sequence, offset, finished in rows}

    def set_aside(self) -> list[SetAside]:
        with self._transaction() as connection:
            rows = connection.execute(
                'SELECT series, sequence, "offset", tag, region, payload FROM watchllm.journal_set_aside '
                'WHERE tag <> %s AND home = %s ORDER BY series, sequence, "offset"',
                [DAMAGE_TAG, self._home],
            ).fetchall()
        return [SetAside(*row) for row in rows]

    def catch_up(self) -> bool:
        any_due = False
        while True:
            with self._transaction() as connection:
                due = spent.take_due(connection)
                uses: spending.Uses = {}
                for row in due:
                    spending.add_due(uses, row)
                organizations = self._organizations_of(connection, {row.project_id for row in due})
                spent.add(connection, uses, organizations.get)
            if not due:
                return any_due
            any_due = True

    def spent(self, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
        with self._transaction() as connection:
            return spent.spent(connection, subjects, periods)

    def organizations_of(self, projects: Iterable[str]) -> dict[str, str]:
        with self._transaction() as connection:
            return self._organizations_of(connection, set(projects))

    def members(self, organization: str) -> set[str]:
        with self._transaction() as connection:
            rows = connection.execute(_MEMBERS, [organization, organization]).fetchall()
        return {organization, *(name for (name,) in rows)}

    def apply(self, batch: Batch) -> int:
        careful = False
        for _ in range(_TRIES):
            try:
                return self._apply(batch, careful=careful)
            except UniqueViolation:
                # Some request has a row already (a folder that was rescued, a position that was lost): look each one
                # up, which is slow and rare.
                careful = True
            except CheckViolation:
                # A partition was dropped by another host's recorder: have it made again.
                self._days = set()
        raise StoreUnavailable(f"the database {place(self._engine)}: other recorders change the same rows just now")

    def expire(self, retention: Retention) -> bool:
        now = self._clock()
        if (day := retention.first_day(now)) is not None:
            with self._transaction() as connection:
                try:
                    if partitions.drop(connection, day):
                        self._days = set()
                except LockNotAvailable:
                    # Somebody reads for long; the next time will do.
                    connection.rollback()
                    return False
        alike: dict[int, list[str]] = {}
        for project, day in retention.first_days(now).items():
            alike.setdefault(day, []).append(project)
        left = _FORGET_AT_ONCE
        with self._transaction() as connection:
            for day, projects in alike.items():
                left -= connection.execute(_FORGET, [projects, day * DAY_MS, left]).rowcount
            if left:
                left -= spent.forget(connection, now, left)
        return left <= 0

    def _apply(self, batch: Batch, *, careful: bool) -> int:
        now = self._clock()
        with self._transaction() as connection:
            check_positions(batch.read_from, self._positions(connection, list(batch.read_from)))
            ended = {event.request_id for event, _ in batch.settled}
            ended.update(batch.unreadable)
            self._keep_open(connection, batch, ended)
            events = batch.settled
            if careful:
                events = _without_known(connection, events)
            if batch.finished:
                # When a call was begun, which is its time here, is not when its request came: no index would notice.
                events = events + _without_known(connection, self._close(connection, batch.finished))
            events = [(_storable(event), region) for event, region in events]
            self._make_partitions(connection, events, now)
            self._write(connection, events)
            self._note(connection, batch, now)
        return len(events)

    def _positions(self, connection: RawConnection, series: list[str] | None) -> dict[str, Position]:
        """Of this home; of all its series where None are named."""
        query = f"{_POSITIONS} WHERE home = %s AND (%s::text[] IS NULL OR series = ANY(%s))"
        rows = connection.execute(query, [self._home, series, series]).fetchall()
        return {name: Position(sequence, offset, finished) for name, sequence, offset, finished in rows}

    def _keep_open(self, connection: RawConnection, batch: Batch, ended: set[str]) -> None:
        """Most calls open and settle within a batch and are never written."""
        merge(
            connection,
            _ADD_OPENED,
            [
                (call.request_id, call.attempt, series, region, _encode(call))
                for series, region, call in batch.opened
                if call.request_id not in ended
            ],
        )
        if connection.execute("SELECT 1 FROM watchllm.journal_opened LIMIT 1").fetchone():
            connection.execute("DELETE FROM watchllm.journal_opened WHERE request_id = ANY(%s)", [list(ended)])

    def _close(self, connection: RawConnection, finished: list[str]) -> Recorded:
        """The events that close what is still open of these series, which is forgotten."""
        rows = connection.execute(
            "WITH gone AS (DELETE FROM watchllm.journal_opened WHERE series = ANY(%s) RETURNING *) "
            "SELECT request_id, region, call FROM gone ORDER BY series, request_id, attempt",
            [finished],
        ).fetchall()
        closed: Recorded = []
        for _, group in groupby(rows, key=lambda row: row[0]):
            calls = list(group)
            closed.append((aborted([_decode_call(call) for _, _, call in calls]), calls[0][1]))
        return closed

    def _make_partitions(self, connection: RawConnection, events: Recorded, now: int) -> None:
        today = now // DAY_MS
        needed = {max(event.at_ns, 0) // 1_000_000 // DAY_MS for event, _ in events}
        needed.update(range(today, today + _DAYS_AHEAD + 1))
        if not needed <= self._days:
            self._days = partitions.make(connection, needed)

    def _write(self, connection: RawConnection, events: Recorded) -> None:
        if not events:
            return
        connection.execute(spent.COUNTS_BY_ITSELF)
        with connection.cursor() as cursor, cursor.copy(copying.STATEMENT) as copy:
            for block in copying.blocks(row_of(event, region) for event, region in events):
                copy.write(block)
        rollup, uses, spendings = summed(events)
        capped = [(*key, *(min(value, _LARGEST) for value in sums)) for key, sums in sorted(rollup.items())]
        merge(connection, _ADD_ROLLUP, capped)
        merge(connection, _ADD_KEY_USES, [(*key, *measures) for key, measures in sorted(uses.items())])

        organizations = self._organizations_of(connection, {event.project_id for event, _ in events})
        spent.add(connection, spendings, organizations.get)

    def _organizations_of(self, connection: RawConnection, projects: set[str]) -> dict[str, str]:
        """The projects' organizations, which they keep for good, as far as they are known here."""
        asked = projects - self._organizations.keys()
        if asked:
            if len(self._organizations) >= _MOST_ORGANIZATIONS:
                self._organizations.clear()
                asked = projects
            query = "SELECT id, organization_id FROM watchllm.projects WHERE id = ANY(%s)"
            self._organizations.update(connection.execute(query, [list(asked)]).fetchall())
        return {name: self._organizations[name] for name in projects if name in self._organizations}

    def _note(self, connection: RawConnection, batch: Batch, now: int) -> None:
        """Write down how far the journals are applied, and what was set aside."""
        merge(connection, _ADD_SET_ASIDE, [(*item, now, self._home) for item in batch.set_aside])
        if batch.readable_now:
            gone = [(item.series, item.sequence, item.offset) for item in batch.readable_now]
            connection.execute(_TAKEN_BACK, [list(column) for column in zip(*gone, strict=True)])
        merge(
            connection,
            _SET_POSITION,
            [
                (series, at.sequence, at.offset, at.finished, batch.torn.get(series, 0), now, self._home)
                for series, at in batch.positions.items()
            ],
        )
        if batch.finished:
            connection.execute(
                "DELETE FROM watchllm.journal_positions WHERE finished AND torn = 0 "
                "AND updated_ms < CASE WHEN home = %s THEN %s ELSE %s END",
                [self._home, now - _KEEP_FINISHED_MS, now - _KEEP_OF_OTHERS_MS],
            )

    @contextmanager
    def _transaction(self) -> Iterator[RawConnection]:
        """The driver's own connection: for rows by the ten thousand, SQLAlchemy's part would be the larger one."""
        try:
            pooled = self._engine.raw_connection()
            try:
                connection = cast(RawConnection, pooled.driver_connection)
                try:
                    yield connection
                    connection.commit()
                except BaseException:
                    _roll_back(connection)
                    raise
            finally:
                pooled.close()
        except (UniqueViolation, CheckViolation):
            raise
        except (psycopg.Error, DBAPIError) as error:
            raise StoreUnavailable(f"the database {place(self._engine)}: {error}") from error


def _without_known(connection: RawConnection, events: Recorded) -> Recorded:
    """Those that have no row yet, each once."""
    if not events:
        return events
    ids = [event.request_id for event, _ in events]
    query = "SELECT request_id FROM watchllm.usage_logs WHERE request_id = ANY(%s)"
    known = {name for (name,) in connection.execute(query, [ids]).fetchall()}
    fresh = []
    for event, region in events:
        if event.request_id not in known:
            known.add(event.request_id)
            fresh.append((event, region))
    return fresh


def _storable(event: UsageEvent) -> UsageEvent:
    """With the one key that comes from clients in the form that its row will have: sums are kept by it."""
    if "\0" not in event.model:
        return event
    return msgspec.structs.replace(event, model=event.model.replace("\0", copying.UNSTORABLE))


def _roll_back(connection: RawConnection) -> None:
    try:
        connection.rollback()
    except psycopg.Error:
        pass  # It is lost, and with it its transaction.
