"""Tells of budgets that were passed and refuse nothing: nobody would hear of them else."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

from watchllm.analytics.spent import passed_alerts, spent_by
from watchllm.compose.checks import WARNING, Check
from watchllm.control import alerting
from watchllm.control.database import Database
from watchllm.control.plans import Plan

_MOST_TOLD = 10
_AT_ONCE = 500
_ADVICE = "raise the budget, or set budget_mode=hard; `watchllm usage spent ID` and the console's limits say more"


def examine_budgets(database: Database, plans: Mapping[str, Plan]) -> Iterator[Check]:
    """One warning for each budget that was passed and only alerts, a few of them; nothing where there is none. Raises
    DatabaseUnusable."""
    with database.reporting() as connection:
        found: list[str] = []
        left = alerting.holders(connection, plans)
        now = datetime.now(UTC)
        while len(found) <= _MOST_TOLD and (some := list(islice(left, _AT_ONCE))):
            spent = spent_by(connection, [each.id for each in some], now)
            for each in some:
                whose = f"the {each.kind} {each.name} ({each.id})"
                found += [f"{whose}: {alert}" for alert in passed_alerts(each.limits, spent[each.id]).values()]
    for line in found[:_MOST_TOLD]:
        yield Check("budget", WARNING, line, _ADVICE)
    if found[_MOST_TOLD:]:
        yield Check("budget", WARNING, "there are more budgets that are over, alert only", _ADVICE)
