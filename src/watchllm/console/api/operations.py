"""The operations of the management API, each one call of the control plane; routes and their description are made of
this table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from watchllm.analytics import spent
from watchllm.console.api.asked import Asked, changes_in
from watchllm.console.told import told
from watchllm.control import described, organizations
from watchllm.control.errors import PublicationFailed
from watchllm.control.keys import NewKey as MadeKey
from watchllm.control.keys import parse_changes as parse_key_changes
from watchllm.domain import ids
from watchllm.domain.errors import BadRequest
from watchllm.domain.limits import parse_limits
from watchllm.domain.moments import expiry
from watchllm.domain.settings import parse_settings


@dataclass(frozen=True, slots=True)
class Operation:
    """`run` blocks, and gives the document of the answer. `body` and `answer` name schemas of the description; `paged`:
    the answer is a page of such documents."""

    name: str
    summary: str
    run: Callable[[Asked], Any]
    answer: str
    body: str | None = None
    paged: bool = False
    status: int = 200


class NewProject(msgspec.Struct, forbid_unknown_fields=True):
    """The body that makes a project."""

    name: str


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body that makes a key. `expires` as on the command line: 90d, 12h, 30m or a date; empty: never. `limits` as
    the body that changes a key has them."""

    name: str = ""
    test: bool = False
    scopes: tuple[str, ...] = ("inference",)
    expires: str = ""
    limits: dict[str, Any] = {}


def _organization(asked: Asked) -> Any:
    return described.organization(asked.own.organization())


def _set_organization(asked: Asked) -> Any:
    changes = asked.changes(organizations.parse_changes)
    changed = described.organization(asked.own.set_organization(changes))
    return _with_warnings(changed, asked.own.warnings(changes))


def _plans(asked: Asked) -> Any:
    plans = asked.own.plans(asked.own.organization())
    return {"data": [described.plan(name, plan) for name, plan in plans.items()], "next": None}


def _projects(asked: Asked) -> Any:
    after, most = asked.page(ids.PROJECT)
    return _page([described.project(project) for project in asked.own.projects(after, most + 1)], most)


def _create_project(asked: Asked) -> Any:
    return described.project(asked.own.create_project(asked.as_body(NewProject).name))


def _project(asked: Asked) -> Any:
    return described.project(asked.own.project(asked.id))


def _set_project(asked: Asked) -> Any:
    changes = asked.changes(parse_settings)
    changed = described.project(asked.own.set_project(asked.id, changes))
    return _with_warnings(changed, asked.own.warnings(changes, asked.id))


def _spent(asked: Asked) -> Any:
    project = asked.own.project(asked.id)
    with asked.own.database.reading() as connection:
        found = spent.spent(connection, project.id, datetime.fromtimestamp(asked.now, UTC))
    return spent.described(project.id, found, project.settings)


def _keys(asked: Asked) -> Any:
    after, most = asked.page(ids.KEY)
    return _page([described.key(key) for key in asked.own.keys(asked.id, after, most + 1)], most)


def _create_key(asked: Asked) -> Any:
    wanted = asked.as_body(NewKey)
    try:
        expires_at = expiry(wanted.expires, asked.now)
    except ValueError as error:
        raise BadRequest(str(error), param="expires") from None
    limits = changes_in(wanted.limits, parse_limits)
    # Before it is made: nothing may fail between that and its being shown.
    warnings = asked.own.warnings(limits, asked.id)
    try:
        made = asked.own.create_key(
            asked.id,
            name=wanted.name,
            test=wanted.test,
            scopes=wanted.scopes,
            expires_at=expires_at,
            limits=limits,
        )
    except PublicationFailed as error:
        if not isinstance(error.made, MadeKey):
            raise
        told(error)  # It is made, and nobody sees it a second time.
        return _with_warnings(described.new_key(error.made, published=False), warnings)
    return _with_warnings(described.new_key(made), warnings)


def _key(asked: Asked) -> Any:
    return described.key(asked.own.key(asked.id))


def _set_key(asked: Asked) -> Any:
    changes = asked.changes(lambda pairs: parse_key_changes(pairs, asked.now))
    changed = asked.own.set_key(asked.id, changes)
    return _with_warnings(described.key(changed), asked.own.warnings(changes, changed.project_id))


def _revoke_key(asked: Asked) -> Any:
    return described.key(asked.own.revoke_key(asked.id))


def _with_warnings(changed: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """The document of what was changed, as it is read afterwards; `warnings` only where there are some."""
    return changed | {"warnings": warnings} if warnings else changed


def _page(found: Sequence[dict[str, Any]], most: int) -> dict[str, Any]:
    """One row more than `most` was asked for: it tells whether there is a next page."""
    return {"data": found[:most], "next": found[most - 1]["id"] if len(found) > most else None}


PATHS: dict[str, dict[str, Operation]] = {
    "/organization": {
        "GET": Operation(
            "getOrganization", "The token's organization, its plan and its own limits", _organization, "Organization"
        ),
        "PATCH": Operation(
            "setOrganization",
            "Change its limits, which go before the plan's; where that is not self-hosted only to tighter ones, and "
            "neither plan nor overage_cap_usd",
            _set_organization,
            "ChangedOrganization",
            body="OrganizationChanges",
        ),
    },
    "/plans": {
        "GET": Operation(
            "listPlans",
            "The plan it has, or, where that is self-hosted, all plans, on one page",
            _plans,
            "Plan",
            paged=True,
        )
    },
    "/projects": {
        "GET": Operation("listProjects", "Projects, oldest first", _projects, "Project", paged=True),
        "POST": Operation("createProject", "Make a project", _create_project, "Project", body="NewProject", status=201),
    },
    "/projects/{id}": {
        "GET": Operation("getProject", "A project with all its settings", _project, "Project"),
        "PATCH": Operation(
            "setProject", "Change settings of a project", _set_project, "ChangedProject", body="ProjectChanges"
        ),
    },
    "/projects/{id}/spent": {
        "GET": Operation("getSpent", "What counts against its quota and budgets", _spent, "Spent")
    },
    "/projects/{id}/keys": {
        "GET": Operation("listKeys", "Its keys, revoked ones too, oldest first", _keys, "Key", paged=True),
        "POST": Operation(
            "createKey",
            "Make a key, which only this answer shows",
            _create_key,
            "NewlyMadeKey",
            body="NewKey",
            status=201,
        ),
    },
    "/keys/{id}": {
        "GET": Operation("getKey", "A key with the limits of its own", _key, "Key"),
        "PATCH": Operation(
            "setKey",
            "Change the limits of a key, which hold beside its project's, its name, scopes or when it expires",
            _set_key,
            "ChangedKey",
            body="KeyChanges",
        ),
        "DELETE": Operation("revokeKey", "Put a key out of force, at once and for good", _revoke_key, "Key"),
    },
}
