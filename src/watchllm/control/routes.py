"""Routes: a project's own rules of where the models that its clients name lead."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from watchllm.control import projects
from watchllm.control.database import PROJECT, UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.tables import routes
from watchllm.domain.snapshot import RouteRecord

MAX_ROUTES = 64
MAX_CHOICES = 8
MAX_FALLBACKS = 8
MAX_WEIGHT = 1000
MAX_RETRIES = 5
MAX_SECONDS = 3600.0
MIN_SECONDS = 0.05
_MAX_NAME = 256

LeadsTo = Callable[[str], str | None]
"""The provider that a model's name leads to, None = to none that is known."""

_choices = msgspec.json.Decoder(tuple[tuple[str, int], ...])
_names = msgspec.json.Decoder(tuple[str, ...])


class Route(msgspec.Struct, frozen=True):
    """A rule of a project, and when it was set."""

    project_id: str
    rule: RouteRecord
    created_ms: int


def put(work: UnitOfWork, project_id: str, rule: RouteRecord, leads_to: LeadsTo) -> Route:
    """Set a rule, in place of the one of the same name.

    Raises NotFound for the project; Invalid, which names what is wrong, for a rule out of bounds, a model that leads to
    no provider that is known, or one that is itself a route: routes do not lead to routes, so that none can go round.
    """
    projects.get(work.connection, project_id)
    check(rule)
    others = [other for other in _of_project(work.connection, project_id) if other.name != rule.name]
    if len(others) >= MAX_ROUTES:
        raise Invalid(f"a project has at most {MAX_ROUTES} routes; remove one with `watchllm route remove`")
    _check_targets(rule, others, leads_to)
    row = _values(rule) | {"project_id": project_id, "created_ms": work.now_ms}
    work.connection.execute(delete(routes).where(routes.c.project_id == project_id, routes.c.name == rule.name))
    work.connection.execute(insert(routes).values(row))
    work.record("route.set", project_id, project=project_id, **msgspec.structs.asdict(rule))
    work.publish(PROJECT, project_id)
    return Route(project_id, rule, work.now_ms)


def remove(work: UnitOfWork, project_id: str, name: str) -> Route:
    """Raises NotFound for the project or a name that no rule has."""
    projects.get(work.connection, project_id)
    here = (routes.c.project_id == project_id, routes.c.name == name)
    row = work.connection.execute(select(routes).where(*here)).first()
    if row is None:
        raise NotFound(f"no route of this project is named {name!r}; `watchllm route list` shows them")
    work.connection.execute(delete(routes).where(*here))
    work.record("route.remove", project_id, project=project_id, name=name)
    work.publish(PROJECT, project_id)
    return Route(project_id, _rule(row), row.created_ms)


def listed(connection: Connection, project_id: str | None = None) -> list[Route]:
    """All, or those of a project, by project and name. Raises NotFound for the project."""
    query = select(routes).order_by(routes.c.project_id, routes.c.name)
    if project_id is not None:
        projects.get(connection, project_id)
        query = query.where(routes.c.project_id == project_id)
    return [Route(row.project_id, _rule(row), row.created_ms) for row in connection.execute(query)]


def by_project(connection: Connection, only: Sequence[str] | None = None) -> dict[str, list[RouteRecord]]:
    """The rules by project: of all projects, or of those in `only`."""
    query = select(routes).order_by(routes.c.name)
    if only is not None:
        query = query.where(routes.c.project_id.in_(only))
    found: dict[str, list[RouteRecord]] = {}
    for row in connection.execute(query):
        found.setdefault(row.project_id, []).append(_rule(row))
    return found


def check(rule: RouteRecord) -> None:
    """Raise Invalid, which names what is wrong, unless the rule is within its bounds in itself."""
    if not _is_name(rule.name) or "*" in rule.name[:-1]:
        raise Invalid(
            f"a route is named as clients name a model: 1 to {_MAX_NAME} printable characters without spaces or "
            "commas, with a * at the end if it is to match all that begin so"
        )
    if not 1 <= len(rule.choices) <= MAX_CHOICES:
        raise Invalid(f"a route has 1 to {MAX_CHOICES} models to choose from")
    if len(rule.fallbacks) > MAX_FALLBACKS:
        raise Invalid(f"a route has at most {MAX_FALLBACKS} fallbacks")
    for model, weight in rule.choices:
        if not 1 <= weight <= MAX_WEIGHT:
            raise Invalid(f"the weight of {model} is a whole number from 1 to {MAX_WEIGHT}")
    models = [*(model for model, _ in rule.choices), *rule.fallbacks]
    for model in models:
        if not _is_name(model) or "*" in model:
            raise Invalid(f"{model!r} is no model's name: a route leads to models as providers name them")
        if models.count(model) > 1:
            raise Invalid(f"the route names {model} twice; each model is tried once anyway")
    if not 0 <= rule.retries <= MAX_RETRIES:
        raise Invalid(f"retries is a whole number from 0 to {MAX_RETRIES}")
    _check_times(rule)


def _check_times(rule: RouteRecord) -> None:
    for name in ("try_timeout", "timeout", "hedge_after"):
        seconds = getattr(rule, name)
        # Written so that what is no number (nan) is refused, too.
        if seconds is not None and not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise Invalid(f"{name} is {MIN_SECONDS} to {MAX_SECONDS:g} seconds")
    if rule.try_timeout is not None and rule.timeout is not None and rule.try_timeout > rule.timeout:
        raise Invalid("try_timeout bounds one call and is not longer than timeout, which bounds all of them")
    bound = min((seconds for seconds in (rule.try_timeout, rule.timeout) if seconds is not None), default=None)
    if rule.hedge_after is not None and bound is not None and rule.hedge_after >= bound:
        raise Invalid("hedge_after is shorter than try_timeout and timeout: later, no call is left to be hedged")


def _check_targets(rule: RouteRecord, others: Sequence[RouteRecord], leads_to: LeadsTo) -> None:
    models = [*(model for model, _ in rule.choices), *rule.fallbacks]
    names = {other.name for other in others}
    for model in models:
        provider = leads_to(model)
        if model in names and not model.startswith(f"{provider}/"):
            raise Invalid(f"{model} is a route of this project, and routes do not lead to routes: {_instead(model)}")
        if provider is None:
            raise Invalid(
                f"{model} leads to no provider that is known here: name it as provider/model, or set the project's "
                "default_provider for names without one; a provider of your own first needs a key with --base-url"
            )
    for other in others:
        for model in (*(model for model, _ in other.choices), *other.fallbacks):
            if model == rule.name and not model.startswith(f"{leads_to(model)}/"):
                raise Invalid(
                    f"the route {other.name} leads to the model {model}, and routes do not lead to routes: "
                    f"{_instead(model)} there first"
                )


def _instead(model: str) -> str:
    return f"write provider/{model}"


def _of_project(connection: Connection, project_id: str) -> list[RouteRecord]:
    return by_project(connection, [project_id]).get(project_id, [])


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME and text.isascii() and text.isprintable() and not set(text) & set(" ,")


def _values(rule: RouteRecord) -> dict[str, Any]:
    return msgspec.structs.asdict(rule) | {
        "choices": msgspec.json.encode(rule.choices).decode(),
        "fallbacks": msgspec.json.encode(rule.fallbacks).decode(),
    }


def _rule(row: Row[Any]) -> RouteRecord:
    return RouteRecord(
        row.name,
        _choices.decode(row.choices),
        _names.decode(row.fallbacks),
        row.retries,
        row.try_timeout,
        row.timeout,
        row.hedge_after,
    )
