"""The unit of work: a change, its audit line and its outbox rows commit together or not at all.

Nobody else calls commit. The clock is passed in.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import DBAPIError

from watchllm.configuration import mask_url
from watchllm.control import tables
from watchllm.control.database_errors import SAYS_MORE, unusable

Clock = Callable[[], int]
"""Epoch milliseconds."""

_REPLICA_PAUSE_MS = 30_000

KEY, PROJECT = "key", "project"
"""Kinds of objects that the outbox names."""


class UnitOfWork:
    """One transaction that writes. `actor` is who caused it, `now_ms` when."""

    def __init__(self, connection: Connection, actor: str, now_ms: int) -> None:
        self.connection = connection
        self.actor = actor
        self.now_ms = now_ms
        self.published: dict[str, set[str]] = {}
        """The ids of the objects to publish, by kind."""

    def publish(self, kind: str, *object_ids: str) -> None:
        """Have the current state of objects brought to the proxies after the commit."""
        rows = [{"kind": kind, "object_id": object_id, "at_ms": self.now_ms} for object_id in object_ids]
        if rows:
            self.published.setdefault(kind, set()).update(object_ids)
            self.connection.execute(insert(tables.outbox), rows)

    def record(self, action: str, object_id: str, **details: Any) -> None:
        """Write the audit line of a change; `details` must hold no secret."""
        line = {
            "at_ms": self.now_ms,
            "actor": self.actor,
            "action": action,
            "object_id": object_id,
            "details": msgspec.json.encode(details).decode(),
        }
        self.connection.execute(insert(tables.audit).values(line))


class Database:
    """The source of truth behind an engine that an adapter made. Safe to use from several threads.

    `replica` is a copy that follows it, for what only informs.
    """

    def __init__(self, engine: Engine, clock: Clock, *, replica: Engine | None = None) -> None:
        self.engine = engine
        self.replica = replica
        self._clock = clock
        self._replica_not_before_ms = 0

    @contextmanager
    def unit_of_work(self, actor: str) -> Iterator[UnitOfWork]:
        """A transaction that writes; it commits when the block ends and rolls back when it raises.

        Raises DatabaseUnusable when the database cannot be reached or written.
        """
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(watchllm_writes=True)
            with connection.begin():
                yield UnitOfWork(connection, actor, self._clock())

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one state throughout. Raises DatabaseUnusable."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def reporting(self) -> Iterator[Connection]:
        """As `reading`, for what may be some moments old: on the replica, where there is one and it can be reached.

        One that could not be is left alone for a while: each attempt may take as long as its time-out.
        """
        with ExitStack() as stack:
            connection = None
            if self.replica is not None and self._clock() >= self._replica_not_before_ms:
                try:
                    connection = stack.enter_context(self.replica.connect())
                    stack.enter_context(connection.begin())
                except DBAPIError:
                    # `watchllm doctor` tells of it; what people want to see is in the database, too.
                    connection = None
                    self._replica_not_before_ms = self._clock() + _REPLICA_PAUSE_MS
            if connection is None:
                connection = stack.enter_context(self.reading())
            with self._translated():
                yield connection

    def value(self, name: str) -> bytes | None:
        """A value of the whole instance, such as the canary."""
        with self.reading() as connection:
            value = connection.scalar(select(tables.instance.c.value).where(tables.instance.c.name == name))
        return None if value is None else bytes(value)

    def close(self) -> None:
        self.engine.dispose()
        if self.replica is not None:
            self.replica.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise unusable(f"the database {place(self.engine)} failed", error, SAYS_MORE) from error


def place(engine: Engine) -> str:
    """Where a database is, for messages: the URL with all that may be secret masked."""
    return mask_url(engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False))
