"""A connection that does not wait for ever: a server that stands still, or whose host is gone, is an error in time."""

import time
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen

_LOOK_SECONDS = 0.1


class BoundedConnection(psycopg.Connection[Any]):
    """Waits up to `answer_seconds` (None = for ever) for each step: a statement, a piece of a COPY.

    After such a time-out nobody knows what the server did, or will do: the connection is closed.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = _LOOK_SECONDS, timeout: float | None = None) -> RV:
        """Run a step of the protocol to its end. Raises OperationalError when the server does not get there."""
        bound = self.answer_seconds if timeout is None else timeout
        began = time.monotonic()
        try:
            return super().wait(gen, interval, bound)
        except psycopg.OperationalError:
            if bound is None or time.monotonic() - began < bound:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer from the server within {bound:g} s") from None
