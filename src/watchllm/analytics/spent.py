"""What a key, a project or an organization has spent, read for people."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from watchllm.analytics.spending import TOTAL
from watchllm.analytics.tables import spending
from watchllm.domain.money import Nanos


class Spent(NamedTuple):
    """Billable requests of a month; nano-dollars of a day, of a month and in all."""

    requests_month: int
    nanos_day: Nanos
    nanos_month: Nanos
    nanos_total: Nanos


def spent(connection: Connection, subject: str, now: datetime) -> Spent:
    """As far as the recorder has brought it into the database; `now` is a time of UTC."""
    day, month = f"{now:%Y-%m-%d}", f"{now:%Y-%m}"
    query = select(spending.c.period, spending.c.requests, spending.c.nanos).where(
        spending.c.subject == subject, spending.c.period.in_((day, month, TOTAL))
    )
    found = {period: (requests, nanos) for period, requests, nanos in connection.execute(query)}
    nothing = (0, 0)
    return Spent(
        found.get(month, nothing)[0],
        found.get(day, nothing)[1],
        found.get(month, nothing)[1],
        found.get(TOTAL, nothing)[1],
    )
