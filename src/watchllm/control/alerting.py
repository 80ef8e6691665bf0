"""Budgets that refuse nothing, of everybody who has such."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from watchllm.control import keys, organizations, projects, tables
from watchllm.control.errors import PlansUnusable
from watchllm.control.limits import decoded
from watchllm.control.plans import Plan
from watchllm.domain.limits import Limits
from watchllm.domain.setting_values import ALERT

_WRITTEN = f'"budget_mode":"{ALERT}"'


class Alerted(NamedTuple):
    """`kind` is organization, project or key; `limits` those whose budgets only alert."""

    kind: str
    id: str
    name: str
    limits: Limits


def holders(connection: Connection, plans: Mapping[str, Plan]) -> Iterator[Alerted]:
    """Organizations first, then projects, then keys in force, each in the order of their making."""
    for each in organizations.listed(connection):
        limits = organizations.limits_of(each, plans)
        if limits.budget_mode == ALERT:
            yield Alerted("organization", each.id, each.name, limits)
    for project in projects.listed(connection):
        if project.settings.budget_mode == ALERT:
            yield Alerted("project", project.id, project.name, project.settings)
    table = tables.keys
    query = select(table.c.id, table.c.name, table.c.prefix, table.c.limits).where(
        table.c.revoked_ms.is_(None), table.c.limits.contains(_WRITTEN, autoescape=True)
    )
    for row in connection.execute(query.order_by(table.c.id)):
        yield Alerted("key", row.id, row.name or row.prefix, decoded(row.limits))


def limits_of(connection: Connection, subject: str, plans: Callable[[], Mapping[str, Plan]]) -> Limits:
    """The limits of the key, project or organization of this id, without its plan's where `plans` raises PlansUnusable.
    Raises NotFound, for what is no such id, too."""
    if subject.startswith("key_"):
        return keys.get(connection, subject).limits
    if subject.startswith("org_"):
        organization = organizations.get(connection, subject)
        try:
            return organizations.limits_of(organization, plans())
        except PlansUnusable:
            # What was spent can be told all the same; others tell of the file.
            return organization.limits
    return projects.get(connection, subject).settings
