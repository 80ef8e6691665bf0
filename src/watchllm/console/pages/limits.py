"""Limits: what the organization and each of its projects may use, and what they have used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watchllm.analytics.spent import spent_by
from watchllm.console.cookies import console_of
from watchllm.console.limit_view import Use, shown, uses_of
from watchllm.console.owned import organization_holder, own_of
from watchllm.console.page import render, signed_in, to_sign_in
from watchllm.console.services import Console
from watchllm.control.users import User
from watchllm.domain.limits import Limits

PROJECTS = 50
"""Rows of a page."""

MINUTES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
"""The columns without a use: what counts there is over in a minute."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one may use: `bounds` in the order of MINUTES, `uses` of quota and budgets. `lists`: only some models,
    providers or addresses are allowed."""

    name: str
    path: str
    bounds: Sequence[str]
    uses: Sequence[Use]
    lists: bool


@dataclass(frozen=True, slots=True)
class LimitsPage:
    """`next_path` empty: these are the last. `beyond_first`: there is a page before. `plan_problem`: why the plan's
    limits are not known."""

    organization: Line
    plan: str
    plan_problem: str
    projects: Sequence[Line]
    next_path: str
    beyond_first: bool


async def show(request: Request) -> Response:
    user = await signed_in(request)
    if user is None:
        return to_sign_in()
    page = await run_in_threadpool(_page, console_of(request), user, request.query_params.get("after"))
    return render(request, "limits.html", "Limits", page, user=user)


def _page(console: Console, user: User, after: str | None) -> LimitsPage:
    own = own_of(console, user)
    organization = own.organization()
    holder, problem = organization_holder(own, organization)
    found = own.projects(after, PROJECTS + 1)
    projects = found[:PROJECTS]
    now = datetime.fromtimestamp(console.now(), UTC)
    with own.database.reporting() as connection:
        spent = spent_by(connection, [organization.id, *(project.id for project in projects)], now)

    def line(name: str, path: str, subject: str, limits: Limits) -> Line:
        return Line(
            name,
            path,
            [shown(limits, column) for column in MINUTES],
            list(uses_of(limits, spent[subject]).values()),
            any((limits.allowed_models, limits.allowed_providers, limits.allowed_ips)),
        )

    return LimitsPage(
        organization=line(organization.name, "/limits/organization", organization.id, holder.limits),
        plan=organization.plan,
        plan_problem=problem,
        projects=[
            line(project.name, f"/limits/projects/{project.id}", project.id, project.settings) for project in projects
        ],
        next_path=f"/limits?after={projects[-1].id}" if len(found) > PROJECTS else "",
        beyond_first=after is not None,
    )


ROUTES = [Route("/limits", show, methods=["GET"])]
