"""The limits of the organization, a project or a key: which hold, what was used of them, and the form that changes
them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from watchllm.analytics.spent import Spent, spent_by
from watchllm.console.cookies import console_of
from watchllm.console.forms import read_form
from watchllm.console.limit_subjects import PROJECT, Finder, Parent, key, organization, project
from watchllm.console.limit_view import Field, Row, Use, changed, fields, rows, state_of, uses_of
from watchllm.console.owned import own_of
from watchllm.console.page import render, signed_in, to_sign_in
from watchllm.console.services import Console
from watchllm.console.told import told
from watchllm.control.errors import (
    BeyondPlan,
    Forbidden,
    Invalid,
    NotFound,
    PlansUnusable,
    PricesUnusable,
    PublicationFailed,
)
from watchllm.control.keys import Key
from watchllm.control.organization_plane import MAY_CHANGE
from watchllm.control.users import User
from watchllm.domain.limits import LIMIT_FORMS, Limits
from watchllm.domain.setting_values import InvalidSetting

KEYS = 50
"""Rows of a page."""

STATE_FIELD = "state"
_MOST_BYTES = 64 * 1024
_CHANGED_MEANWHILE = "Somebody changed these limits after this page was shown. This is what holds now; change it again."


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key in force and what was used of its own limits."""

    key: Key
    uses: Sequence[Use]


@dataclass(frozen=True, slots=True)
class LimitsOf:
    """`parents` lead from all limits to here. `state` marks what the form shows; `problem`
    says why a change did not come about, `plan_problem` why the plan's limits are not known. `closed`: why nobody may
    change anything, or this user may not."""

    kind: str
    id: str
    name: str
    path: str
    parents: Sequence[Parent]
    holders: Sequence[str]
    rows: Sequence[Row]
    fields: Sequence[Field]
    state: str
    closed: str
    plan_problem: str = ""
    problem: str = ""
    saved: bool = False
    keys: Sequence[KeyLine] = ()
    next_path: str = ""
    beyond_first: bool = False


def _pages(find: Finder) -> tuple[Callable[[Request], Any], Callable[[Request], Any]]:
    """What shows the limits of a kind of subjects, and what takes the form."""

    async def show(request: Request) -> Response:
        user = await signed_in(request)
        if user is None:
            return to_sign_in()
        page = await run_in_threadpool(_page, console_of(request), user, find, request)
        return _rendered(request, user, page)

    async def change(request: Request) -> Response:
        form = await read_form(request, _MOST_BYTES)
        user = await signed_in(request)
        if user is None:
            return to_sign_in()
        problem, status = await run_in_threadpool(_change, console_of(request), user, find, request, form.fields)
        path = request.url.path
        if not problem:
            return RedirectResponse(f"{path}?saved=1", 303)
        # What was typed stays to be put right; what was overtaken, or is saved already, is shown as it is.
        typed = form.fields if status in (400, 403) else {}
        page = await run_in_threadpool(_page, console_of(request), user, find, request, typed)
        return _rendered(request, user, replace(page, problem=problem, saved=False), status)

    return show, change


def _rendered(request: Request, user: User, page: LimitsOf, status: int = 200) -> Response:
    return render(request, "limits_of.html", f"Limits of {page.name}", page, user=user, status=status)


def _change(console: Console, user: User, find: Finder, request: Request, typed: Mapping[str, str]) -> tuple[str, int]:
    """Change what is not as it was shown; what went wrong, empty = nothing, and the status that says so. Raises
    HTTPException (403, 404)."""
    try:
        subject = find(own_of(console, user), request.path_params.get("id", ""))
        if typed.get(STATE_FIELD) != state_of(subject.values):
            return _CHANGED_MEANWHILE, 409
        pairs = changed(subject.values, typed)
        if pairs:
            subject.set(pairs)
    except NotFound as error:
        raise HTTPException(404) from error
    except BeyondPlan as error:
        return f"{error}.", 403
    except Forbidden as error:
        raise HTTPException(403, f"Limits were not changed: {error}.") from error
    except (InvalidSetting, Invalid) as error:
        return str(error), 400
    except (PublicationFailed, PlansUnusable, PricesUnusable) as error:
        return told(error), 503
    return "", 200


def _page(
    console: Console, user: User, find: Finder, request: Request, typed: Mapping[str, str] | None = None
) -> LimitsOf:
    own = own_of(console, user)
    try:
        subject = find(own, request.path_params.get("id", ""))
    except NotFound as error:
        raise HTTPException(404) from error
    after = request.query_params.get("after")
    keys = own.keys(subject.id, after, KEYS + 1, only_in_force=True) if subject.kind == PROJECT else []
    with own.database.reporting() as connection:
        now = datetime.fromtimestamp(console.now(), UTC)
        spent = spent_by(connection, [subject.id, *(key.id for key in keys[:KEYS])], now)
    limits = msgspec.convert({name: subject.values[name] for name in LIMIT_FORMS}, Limits)
    closed = subject.closed or (
        "" if own.may_change else f"Your role, {user.role}, sees limits; {' and '.join(MAY_CHANGE)} change them."
    )
    return LimitsOf(
        kind=subject.kind,
        id=subject.id,
        name=subject.name,
        path=subject.path,
        parents=subject.parents,
        holders=[holder.title for holder in subject.holders],
        rows=rows(subject.holders, spent[subject.id]),
        fields=[*_typed(subject.extra, typed or {}), *fields(limits, typed or {})],
        state=state_of(subject.values),
        closed=closed,
        plan_problem=subject.plan_problem,
        saved=request.query_params.get("saved") == "1",
        keys=_lines(keys[:KEYS], spent),
        next_path=f"{subject.path}?after={keys[KEYS - 1].id}" if len(keys) > KEYS else "",
        beyond_first=after is not None,
    )


def _typed(shown: Sequence[Field], typed: Mapping[str, str]) -> list[Field]:
    return [field if field.fixed else replace(field, value=typed.get(field.name, field.value)) for field in shown]


def _lines(keys: Sequence[Key], spent: Mapping[str, Spent]) -> list[KeyLine]:
    return [KeyLine(key, list(uses_of(key.limits, spent[key.id]).values())) for key in keys]


def _routes(path: str, find: Finder) -> list[Route]:
    show, change = _pages(find)
    return [Route(path, show, methods=["GET"]), Route(path, change, methods=["POST"])]


ROUTES = [
    *_routes("/limits/organization", organization),
    *_routes("/limits/projects/{id}", project),
    *_routes("/limits/keys/{id}", key),
]
