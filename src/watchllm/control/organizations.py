"""Organizations: the unit of billing, each with a plan. The embedded default has one, named Default."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from watchllm.control import limits
from watchllm.control.database import PROJECT, UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.names import checked
from watchllm.control.plans import SELF_HOSTED, Plan
from watchllm.control.tables import organizations, projects
from watchllm.domain import setting_values as form
from watchllm.domain.ids import ORGANIZATION, new_id
from watchllm.domain.limits import LIMIT_FORMS, Limits
from watchllm.domain.setting_values import parsed
from watchllm.domain.snapshot import OrganizationRecord

DEFAULT_NAME = "Default"


class Organization(msgspec.Struct, frozen=True):
    """`limits` are those of its own, which go before its plan's one by one; `overage_cap_usd` is what it agreed to pay
    a month for requests beyond its plan's, None = as the plan says."""

    id: str
    name: str
    created_ms: int
    plan: str = SELF_HOSTED
    limits: Limits = Limits()
    overage_cap_usd: float | None = None


class _Settings(msgspec.Struct):
    """What can be set on an organization beside its limits, with the defaults."""

    plan: str = SELF_HOSTED
    overage_cap_usd: float | None = None


def parse_changes(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Turn `name=value` texts into typed values: limits, `plan` and `overage_cap_usd`. Raises InvalidSetting."""
    forms: dict[str, Callable[[str], Any]] = {**LIMIT_FORMS, "plan": str, "overage_cap_usd": form.usd}
    return {
        name: parsed(name, text, forms, Limits() if name in LIMIT_FORMS else _Settings())
        for name, text in pairs.items()
    }


def first(connection: Connection) -> Organization | None:
    """The oldest organization, which everything belongs to until others are made."""
    row = connection.execute(select(organizations).order_by(organizations.c.created_ms, organizations.c.id)).first()
    return None if row is None else _organization(row)


def get(connection: Connection, organization_id: str) -> Organization:
    """Raises NotFound."""
    row = connection.execute(select(organizations).where(organizations.c.id == organization_id)).first()
    if row is None:
        raise NotFound(f"no organization has the id {organization_id!r}; `watchllm organization list` shows them")
    return _organization(row)


def listed(connection: Connection) -> list[Organization]:
    """All of them, oldest first."""
    rows = connection.execute(select(organizations).order_by(organizations.c.created_ms, organizations.c.id))
    return [_organization(row) for row in rows]


def create(work: UnitOfWork, name: str) -> Organization:
    """One with the plan `self-hosted`. Raises Invalid for an empty or over-long name."""
    name = checked(name, "an organization")
    organization = Organization(new_id(ORGANIZATION), name, work.now_ms)
    row = msgspec.structs.asdict(organization) | {"limits": limits.encoded(organization.limits)}
    work.connection.execute(insert(organizations).values(row))
    work.record("organization.create", organization.id, name=name)
    return organization


def change(
    work: UnitOfWork, organization_id: str, changes: Mapping[str, Any], plans: Mapping[str, Plan]
) -> Organization:
    """Apply what `parse_changes` gave. Raises NotFound, and Invalid for a plan that does not exist."""
    organization = get(work.connection, organization_id)
    own = {name: value for name, value in changes.items() if name in LIMIT_FORMS}
    others = {name: value for name, value in changes.items() if name not in LIMIT_FORMS}
    if others.get("plan", SELF_HOSTED) not in plans:
        raise Invalid(f"no plan is named {others['plan']!r}; plans are {', '.join(plans)}")
    changed = msgspec.structs.replace(
        organization, limits=msgspec.structs.replace(organization.limits, **own), **others
    )
    work.connection.execute(
        update(organizations)
        .where(organizations.c.id == organization_id)
        .values(plan=changed.plan, limits=limits.encoded(changed.limits), overage_cap_usd=changed.overage_cap_usd)
    )
    work.record("organization.set", organization_id, **msgspec.to_builtins(dict(changes)))
    own_projects = select(projects.c.id).where(projects.c.organization_id == organization_id)
    work.publish(PROJECT, *work.connection.scalars(own_projects))
    return changed


def default(work: UnitOfWork) -> Organization:
    """The first organization, made when there is none."""
    return first(work.connection) or create(work, DEFAULT_NAME)


def owner(work: UnitOfWork, organization_id: str | None) -> Organization:
    """Whose a new thing is: of the organization of that id, None = of the first. Raises NotFound."""
    return default(work) if organization_id is None else get(work.connection, organization_id)


def records(
    connection: Connection, plans: Mapping[str, Plan], only: Collection[str] | None = None
) -> dict[str, OrganizationRecord]:
    """What proxies know of each, or of those of the ids in `only`, by id; without those whose plan is not there any
    more."""
    query = select(organizations)
    if only is not None:
        query = query.where(organizations.c.id.in_(only))
    found = map(_organization, connection.execute(query))
    return {one.id: _record(one, plans[one.plan]) for one in found if one.plan in plans}


def without_plan(
    connection: Connection, plans: Mapping[str, Plan], of_projects: Sequence[str] | None = None
) -> list[Organization]:
    """Those whose plan is not there any more, oldest first; of the organizations of these projects, None = of all."""
    query = select(organizations).where(organizations.c.plan.not_in(list(plans)))
    if of_projects is not None:
        owners = select(projects.c.organization_id).where(projects.c.id.in_(of_projects))
        query = query.where(organizations.c.id.in_(owners))
    rows = connection.execute(query.order_by(organizations.c.created_ms, organizations.c.id))
    return [_organization(row) for row in rows]


def in_force(organization: Organization, plan: Plan) -> Limits:
    """Its own limits, and its plan's where it has none of its own."""
    own = msgspec.structs.asdict(organization.limits)
    defaults = msgspec.structs.asdict(Limits())
    chosen = {name: value for name, value in own.items() if value != defaults[name]}
    of_plan = {name: getattr(plan, name) for name in Limits.__struct_fields__}
    return Limits(**{**of_plan, **chosen})


def limits_of(organization: Organization, plans: Mapping[str, Plan]) -> Limits:
    """As `in_force`; its own alone where its plan is not there any more."""
    plan = plans.get(organization.plan)
    return organization.limits if plan is None else in_force(organization, plan)


def _record(organization: Organization, plan: Plan) -> OrganizationRecord:
    return OrganizationRecord(
        organization.id,
        plan.tier,
        in_force(organization, plan),
        plan.overage_requests(organization.overage_cap_usd),
    )


def _organization(row: Row[Any]) -> Organization:
    return Organization(row.id, row.name, row.created_ms, row.plan, limits.decoded(row.limits), row.overage_cap_usd)
