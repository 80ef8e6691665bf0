"""What a key, a project or an organization has spent, read for people."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from watchllm.analytics.spending import TOTAL
from watchllm.analytics.tables import spending
from watchllm.domain.limits import Limits
from watchllm.domain.money import NANOS_PER_USD, Nanos, format_usd
from watchllm.domain.setting_values import ALERT, text_of


class Spent(NamedTuple):
    """Billable requests of a month; nano-dollars of a day, of a month and in all."""

    requests_month: int = 0
    nanos_day: Nanos = 0
    nanos_month: Nanos = 0
    nanos_total: Nanos = 0


def spent(connection: Connection, subject: str, now: datetime) -> Spent:
    """As far as the recorder has brought it into the database; `now` is a time of UTC."""
    return spent_by(connection, [subject], now)[subject]


def spent_by(connection: Connection, subjects: Collection[str], now: datetime) -> dict[str, Spent]:
    """The same of several in one query."""
    day, month = f"{now:%Y-%m-%d}", f"{now:%Y-%m}"
    query = select(spending.c.subject, spending.c.period, spending.c.requests, spending.c.nanos).where(
        spending.c.subject.in_(subjects), spending.c.period.in_((day, month, TOTAL))
    )
    found = dict.fromkeys(subjects, Spent())
    for subject, period, requests, nanos in connection.execute(query):
        if period == day:
            found[subject] = found[subject]._replace(nanos_day=nanos)
        elif period == month:
            found[subject] = found[subject]._replace(requests_month=requests, nanos_month=nanos)
        else:
            found[subject] = found[subject]._replace(nanos_total=nanos)
    return found


def passed_alerts(limits: Limits, found: Spent) -> dict[str, str]:
    """The budgets that were passed and refuse nothing, by name, each with a sentence."""
    if limits.budget_mode != ALERT:
        return {}
    spent = {
        "budget_usd_day": found.nanos_day,
        "budget_usd_month": found.nanos_month,
        "budget_usd_total": found.nanos_total,
    }
    budgets = {name: getattr(limits, name) for name in spent}
    return {
        name: f"{name}={text_of(budget)} is over, alert only: {format_usd(spent[name])} US dollars are spent, and "
        "nothing is refused"
        for name, budget in budgets.items()
        if budget is not None and spent[name] >= budget * NANOS_PER_USD
    }


def described(subject: str, found: Spent, limits: Limits) -> dict[str, str | int | list[str]]:
    """As a JSON document, of the command and of the management API; amounts in USD with six decimals. `alerts`: the
    names of budgets that were passed and refuse nothing."""
    return {
        "id": subject,
        "requests_month": found.requests_month,
        "usd_day": format_usd(found.nanos_day),
        "usd_month": format_usd(found.nanos_month),
        "usd_total": format_usd(found.nanos_total),
        "alerts": list(passed_alerts(limits, found)),
    }
