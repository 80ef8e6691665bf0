"""Whose limits a page can be about: the organization, a project or a key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from watchllm.console.limit_view import Field, Holder
from watchllm.console.owned import organization_holder
from watchllm.control.errors import PlansUnusable
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.control.organizations import Organization, parse_changes
from watchllm.control.plans import SELF_HOSTED
from watchllm.domain.limits import LIMIT_FORMS, Limits, parse_limits
from watchllm.domain.setting_values import text_of
from watchllm.domain.settings import parse_settings

ORGANIZATION, PROJECT, KEY = "organization", "project", "key"


class Parent(NamedTuple):
    """A page above."""

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose limits they are, beside whose they hold, and how they are changed. `values` are what the form shows, by
    setting; `extra` its fields beside the limits; `closed` why nobody may change anything."""

    kind: str
    id: str
    name: str
    path: str
    parents: Sequence[Parent]
    holders: Sequence[Holder]
    values: Mapping[str, Any]
    set: Callable[[dict[str, str]], object]
    extra: Sequence[Field] = ()
    closed: str = ""
    plan_problem: str = ""


Finder = Callable[[OrganizationPlane, str], Subject]
"""Finds a subject by its id. Raises NotFound."""


def organization(own: OrganizationPlane, _id: str) -> Subject:
    """There is one; it has no id in its path."""
    found = own.organization()
    holder, problem = organization_holder(own, found)
    return Subject(
        kind=ORGANIZATION,
        id=found.id,
        name=found.name,
        path="/limits/organization",
        parents=(),
        holders=[holder],
        values=_limits(found.limits) | {"plan": found.plan, "overage_cap_usd": found.overage_cap_usd},
        set=lambda pairs: own.set_organization(parse_changes(pairs)),
        extra=_of_organization(own, found),
        plan_problem=problem,
    )


def project(own: OrganizationPlane, project_id: str) -> Subject:
    found = own.project(project_id)
    holder, problem = organization_holder(own, own.organization())
    return Subject(
        kind=PROJECT,
        id=found.id,
        name=found.name,
        path=f"/limits/projects/{found.id}",
        parents=(),
        holders=[Holder("Project", found.settings), holder],
        values=_limits(found.settings),
        set=lambda pairs: own.set_project(project_id, parse_settings(pairs)),
        plan_problem=problem,
    )


def key(own: OrganizationPlane, key_id: str) -> Subject:
    found = own.key(key_id)
    its_project = own.project(found.project_id)
    holder, problem = organization_holder(own, own.organization())
    return Subject(
        kind=KEY,
        id=found.id,
        name=found.name or found.prefix,
        path=f"/limits/keys/{found.id}",
        parents=(Parent(its_project.name, f"/limits/projects/{its_project.id}"),),
        holders=[Holder("Key", found.limits), Holder("Project", its_project.settings), holder],
        values=_limits(found.limits),
        set=lambda pairs: own.set_key(key_id, parse_limits(pairs)),
        closed="" if found.revoked_ms is None else "This key was revoked: nobody can use it any more.",
        plan_problem=problem,
    )


def _limits(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in LIMIT_FORMS}


def _of_organization(own: OrganizationPlane, found: Organization) -> list[Field]:
    cap = "US dollars a month for requests beyond the plan's, where it sells them"
    if found.plan != SELF_HOSTED:
        meaning = "set by whoever runs this installation; its limits can be made tighter here, not wider"
        return [
            Field("plan", meaning, found.plan, fixed=True),
            Field("overage_cap_usd", cap, text_of(found.overage_cap_usd) or "as the plan has it", fixed=True),
        ]
    try:
        names = list(own.plans(found))
    except PlansUnusable:
        # The page says so; the plan it has can be kept.
        names = []
    plans = names if found.plan in names else [found.plan, *names]
    return [
        Field("plan", "its limits hold where the organization has none of its own", found.plan, plans),
        Field("overage_cap_usd", cap, text_of(found.overage_cap_usd)),
    ]
